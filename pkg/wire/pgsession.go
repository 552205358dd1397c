package wire

import "slices"

// maxNamed bounds how many prepared statements, and portals, of one connection
// are remembered. Later ones are proxied all the same, but without a name.
const maxNamed = 16384

// pgSession is what the two directions of a PostgreSQL connection know
// together. It is guarded by the ordering lock.
type pgSession struct {
	sql    *sqlNames
	detail int

	started     bool // the first ReadyForQuery has passed
	replication bool // opened with the parameter replication
	copyBoth    bool // a replication stream runs

	stmts   map[string]*sqlText
	portals map[string]*sqlText

	queue    []pgRequest // forwarded and not answered yet
	skipping bool        // the server discards everything up to the next Sync

	inBlock   bool   // in a transaction block, once all that was forwarded is done
	failed    bool   // the last ReadyForQuery said that the block has failed
	wrote     int    // writes of the implicit transaction that a Sync will commit
	wroteName string // the last of them
	copyNext  bool   // a COPY FROM STDIN was executed, and its data has not ended
	copying   *pgRequest

	downRest int64           // bytes still to come of a message to the client
	prepared map[string]bool // statements of the proxy's own
}

// pgRequest is a message whose answer is awaited.
type pgRequest struct {
	kind     byte // P, B, C, D, E, S, Q or F
	sql      *sqlText
	effect   Effect
	answered int    // statements of a Query answered so far
	hide     bool   // the proxy's own: its answer goes nowhere
	hideTags int    // CommandCompletes of it that go nowhere
	prepares string // the proxy's own statement that it makes
}

func newPGSession(sql *sqlNames, detail int) *pgSession {
	return &pgSession{sql: sql, detail: detail, stmts: make(map[string]*sqlText), portals: make(map[string]*sqlText), prepared: make(map[string]bool)}
}

func remember(m map[string]*sqlText, name []byte, t *sqlText) {
	if _, known := m[string(name)]; known || len(m) < maxNamed {
		m[string(name)] = t
	}
}

// sent queues a request that was forwarded.
func (s *pgSession) sent(r pgRequest) {
	if s.skipping {
		if r.kind != 'S' {
			return
		}
		s.skipping = false
	}
	s.queue = append(s.queue, r)
}

// copyIn takes in that the server now reads the data of r, a COPY. It ignores
// the Syncs that it finds there, such as the one that a client sends behind
// every Execute.
func (s *pgSession) copyIn(r pgRequest) {
	s.copying = &r
	s.queue = slices.DeleteFunc(s.queue, func(q pgRequest) bool { return q.kind == 'S' })
}

// drop removes the first n requests.
func (s *pgSession) drop(n int) {
	s.queue = s.queue[:copy(s.queue, s.queue[n:])]
}

// completed matches ParseComplete, BindComplete, CloseComplete or the answer to
// Describe with its request, and tells whether the answer is to be hidden.
func (s *pgSession) completed(kind byte) bool {
	for i, r := range s.queue {
		switch r.kind {
		case kind:
			s.drop(i + 1)
			if r.prepares != "" {
				s.prepared[r.prepares] = true
			}
			return r.hide
		case 'Q', 'S', 'F':
			return false
		}
	}
	return false
}

// finished matches the end of a statement with its Execute or Query. A Query
// stays queued: it may hold further statements.
func (s *pgSession) finished() (r pgRequest, ok bool) {
	for i := range s.queue {
		switch s.queue[i].kind {
		case 'E':
			r = s.queue[i]
			s.drop(i + 1)
			return r, true
		case 'Q':
			s.drop(i) // a Sync that the server ignored during COPY
			r = s.queue[0]
			s.queue[0].answered++
			if r.hideTags > 0 {
				s.queue[0].hideTags--
			}
			return r, true
		}
	}
	return pgRequest{}, false
}

// erred matches an error with the request that it answers, and forgets what the
// server skips because of it.
func (s *pgSession) erred() (r pgRequest, ok bool) {
	s.copying, s.copyNext = nil, false
	if len(s.queue) == 0 {
		return pgRequest{}, false // not an answer: the server is going away
	}
	i := 0
	for ; i < len(s.queue); i++ {
		q := s.queue[i]
		if q.kind == 'E' && !ok {
			r, ok = q, true
		}
		if q.kind == 'S' || q.kind == 'Q' || q.kind == 'F' {
			if q.kind != 'S' && i == 0 {
				r, ok = q, true
			}
			s.drop(i)
			return r, ok
		}
	}
	s.queue = s.queue[:0]
	s.skipping = true
	return r, ok
}

// ready takes in a ReadyForQuery.
func (s *pgSession) ready(status byte) {
	s.started, s.skipping = true, false
	for i, r := range s.queue {
		if r.kind == 'S' || r.kind == 'Q' || r.kind == 'F' {
			s.drop(i + 1)
			break
		}
	}
	s.failed = status == 'E'
	if len(s.queue) == 0 {
		s.inBlock, s.wrote = status != 'I', 0
	}
}

// idle tells whether the session is outside of a transaction, with nothing asked
// of it.
func (s *pgSession) idle() bool {
	return s.started && !s.replication && !s.inBlock && !s.failed && !s.skipping && s.wrote == 0 && len(s.queue) == 0
}

func (s *pgSession) shutdown() ([]byte, bool) {
	if s.downRest > 0 {
		return nil, true
	}
	return pgError("FATAL", "57P01", "terminating connection due to administrator command"), true
}

func (s *pgSession) unanswered() int { return 0 }

// leave has no words: PostgreSQL deals with all it was sent, then finds the
// end of the stream, rolls back and ends the session.
func (s *pgSession) leave() ([]byte, bool) { return nil, false }

func (s *pgSession) left() bool { return false }

func (s *pgSession) busy() bool {
	if s.copyBoth || s.copying != nil {
		return false // it waits for us
	}
	for _, r := range s.queue {
		if r.kind == 'Q' || r.kind == 'S' || r.kind == 'F' {
			return true
		}
	}
	return false
}
