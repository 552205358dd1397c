package wire

import (
	"net"
	"sync"
)

// maxSpare is the largest buffer that a sink keeps for reuse.
const maxSpare = 256 << 10

// sink is the way out to one destination. Bytes are added under the proxy's
// ordering lock, which never waits; whoever added some flushes them after
// leaving the lock. A flush blocks for as long as the destination does not
// read, and that is the backpressure: a pump reads no more while it flushes.
type sink struct {
	conn net.Conn

	mu      sync.Mutex
	idle    sync.Cond // signalled when a write ends
	pending []byte
	spare   []byte
	writing bool
	err     error // the first failed write; all later bytes are discarded
}

func newSink(conn net.Conn) *sink {
	s := &sink{conn: conn}
	s.idle.L = &s.mu
	return s
}

// add queues b, which is copied.
func (s *sink) add(b []byte) {
	s.mu.Lock()
	if s.err == nil {
		s.pending = append(s.pending, b...)
	}
	s.mu.Unlock()
}

// flush returns when all that was added before has been written, or writing
// has failed.
func (s *sink) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing {
		s.idle.Wait()
	}
	for len(s.pending) > 0 && s.err == nil {
		out := s.pending
		s.pending, s.spare = s.spare[:0], nil
		s.writing = true
		s.mu.Unlock()
		_, err := s.conn.Write(out)
		s.mu.Lock()
		s.writing = false
		if cap(out) <= maxSpare {
			s.spare = out[:0]
		}
		if err != nil {
			s.err, s.pending = err, nil
		}
		s.idle.Broadcast()
	}
	return s.err
}
