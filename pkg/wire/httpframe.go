package wire

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// httpCodec is the codec of either direction of a connection to a service.
type httpCodec struct {
	s      *httpSession
	dir    Direction
	detail int

	// The message that arrives. Until it is decided it stays in the input.
	at     int  // bytes of the input that have been looked at
	headed bool // the head is among them
	head   httpHead
	body   httpBody
	open   bool // decided, and there is more of it to come
	drop   bool // none of which goes out
	entry  int  // in the trace

	request httpRequest // of the message framed last: itself, or what it answers
	answers bool        // it is the response to request
}

func newHTTPCodec(s *httpSession, dir Direction, detail int) *httpCodec {
	return &httpCodec{s: s, dir: dir, detail: detail, entry: -1}
}

func (c *httpCodec) next(in []byte, m *Message) (piece, error) {
	if c.open {
		n, done, err := c.body.scan(in)
		if err != nil {
			return piece{}, err
		}
		p := piece{n: n, data: in[:n], drop: c.drop, grows: int64(n), entry: &c.entry}
		if done {
			c.end()
		}
		return p, nil
	}
	if !c.headed {
		end, line, err := httpHeadEnd(in, c.at)
		if err == nil && end > 0 {
			c.head, err = parseHTTPHead(in[:end], c.dir)
		}
		if err != nil {
			return piece{}, c.refused(err)
		}
		if end == 0 {
			c.at = line
			return piece{wait: true}, nil
		}
		if err := c.match(); err != nil {
			return piece{}, err
		}
		c.headed, c.at = true, end
		c.body = c.head.body(c.request, c.detail+utf8.UTFMax)
	}
	n, done, err := c.body.scan(in[c.at:min(len(in), max(c.at, maxWhole))])
	if err != nil {
		return piece{}, c.refused(err)
	}
	c.at += n
	if !done && c.at < maxWhole && !c.early() {
		return piece{wait: true}, nil
	}
	c.describe(done, m)
	p := piece{n: c.at, data: in[:c.at], msg: true, entry: &c.entry}
	c.open, c.drop, c.entry = !done, false, -1
	if done {
		c.end()
	}
	return p, nil
}

// early tells whether a message is decided on its head: the rest of it comes
// only after that has passed, or comes without an end.
func (c *httpCodec) early() bool {
	return c.head.expects || c.head.endless || c.body.kind == bodyToClose
}

// match finds the request that a message is, or answers.
func (c *httpCodec) match() error {
	h := &c.head
	if c.dir == ToServer {
		if len(c.s.waiting) >= maxPipelined {
			return fmt.Errorf("HTTP client sent %d requests and waited for no response", len(c.s.waiting))
		}
		c.request = httpRequest{name: h.name(), noBody: h.method == http.MethodHead}
		if !h.safe() {
			c.request.effect = Call
		}
		return nil
	}
	c.request, c.answers = httpRequest{}, false
	if len(c.s.waiting) > 0 {
		c.request, c.answers = c.s.waiting[0], h.status >= 200
	}
	return nil
}

// describe fills m.
func (c *httpCodec) describe(done bool, m *Message) {
	h := &c.head
	m.Service, m.Size = c.s.service, int64(c.at)
	m.Type, m.Name, m.Step = "request", c.request.name, true
	m.Effect = c.request.effect
	if c.dir == ToClient {
		m.Type, m.Status, m.Step, m.Effect = "response", h.status, c.answers, NoEffect
		m.Name = strings.TrimSpace(strconv.Itoa(h.status) + " " + c.request.name)
		switch {
		case h.status < 200:
			m.Type = "interim response"
		case c.answers && c.request.effect == Call:
			m.Effect = Done
		}
	}
	total := c.body.size
	if !done {
		total++ // at least
		if c.body.kind == bodyLength {
			total = uint64(h.length)
		}
	}
	lines := h.shown
	switch start := c.body.start; {
	case len(start) == 0:
	case h.packed:
		lines = append(lines, fmt.Sprintf("<%d bytes>", total))
	default:
		lines = append(lines, describeBody(start, total, c.detail))
	}
	m.Detail = clip(strings.Join(lines, "\n"), c.detail)
}

// end is called when all of a message has arrived.
func (c *httpCodec) end() {
	c.open, c.headed, c.at = false, false, 0
	switch {
	case c.dir == ToServer:
		c.s.upOpen = false
	case c.answers:
		c.s.answered()
	}
}

func (c *httpCodec) passed() {
	if c.dir == ToServer {
		c.s.waiting = append(c.s.waiting, c.request)
		c.s.upOpen = c.open
	}
}

func (c *httpCodec) dropped() { c.drop = true }

func (c *httpCodec) nack(bool) ([]byte, bool)           { return nil, false }
func (c *httpCodec) twin(func(Publishing)) bool         { return false }
func (c *httpCodec) heartbeat() ([]byte, time.Duration) { return nil, 0 }
