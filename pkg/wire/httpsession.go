package wire

// maxPipelined bounds how many requests of one connection may wait for their
// responses.
const maxPipelined = 4096

// httpSession is what the two directions of a connection to a service know
// together. It is guarded by the ordering lock.
type httpSession struct {
	service string
	waiting []httpRequest // forwarded and not answered yet: responses come in their order
	upOpen  bool          // the rest of the last of them is still to come
}

// httpRequest is a request whose response is awaited.
type httpRequest struct {
	name   string
	effect Effect
	noBody bool // HEAD: the response has none
}

// answered forgets the request whose response is complete.
func (s *httpSession) answered() {
	if len(s.waiting) > 0 {
		s.waiting = s.waiting[:copy(s.waiting, s.waiting[1:])]
	}
}

func (s *httpSession) shutdown() ([]byte, bool) { return nil, false }

// leave has no words: a service finds the end of the stream.
func (s *httpSession) leave() ([]byte, bool) { return nil, false }

func (s *httpSession) left() bool { return false }

// busy does not count a request whose rest will not come: the service waits for
// that.
func (s *httpSession) busy() bool {
	n := len(s.waiting)
	if s.upOpen {
		n--
	}
	return n > 0
}

func (s *httpSession) unanswered() int { return len(s.waiting) }
