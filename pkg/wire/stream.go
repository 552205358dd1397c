package wire

import (
	"errors"
	"net"
	"os"
	"strconv"
	"time"
)

const (
	// maxBatch bounds how many pieces are dealt with under one lock.
	maxBatch = 64
	// maxDrain bounds what a closing lane still reads from a client.
	maxDrain = 16 << 20
	// maxBuffer is the largest read buffer: a method frame at its longest.
	maxBuffer = maxMethodFrame + firstBuffer
)

// errClosing is returned by fill when the read was ended by a deadline.
var errClosing = errors.New("wire: the lane is closing")

// stream is one direction of a connection. Its pump goroutine owns the buffer;
// the ordering lock guards the rest.
type stream struct {
	c     *conn
	dir   Direction
	src   net.Conn
	dst   *sink
	codec codec

	buf  []byte // buf[r:w] has been read and not dealt with
	r, w int

	index   int        // steps so far
	swallow ActionKind // the fault that ended the stream, if one did
	msg     Message    // the message in hand
	run     struct {
		kind  string
		entry int
		count int
	}
}

func newStream(c *conn, dir Direction, src net.Conn, dst *sink, codec codec, read []byte) *stream {
	if read == nil {
		read = make([]byte, 0, firstBuffer)
	}
	return &stream{c: c, dir: dir, src: src, dst: dst, codec: codec, buf: read[:cap(read)], w: len(read)}
}

// fill reads more. It returns errClosing when a deadline ended the read.
func (s *stream) fill() error {
	s.room()
	if s.w == len(s.buf) {
		return errors.New("wire: no room for a message")
	}
	n, err := s.src.Read(s.buf[s.w:])
	s.w += n
	if n > 0 {
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errClosing
	}
	return err
}

// room makes sure that there is space to read into. The buffer doubles only
// when it is full of what has arrived.
func (s *stream) room() {
	if s.r > 0 {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	if s.w == len(s.buf) {
		grown := make([]byte, min(2*len(s.buf), maxBuffer))
		copy(grown, s.buf[:s.w])
		s.buf = grown
	}
}

// pump deals with all that the buffer holds whole, and writes out what passes.
// It reports false when the connection has been left.
func (s *stream) pump() bool {
	for {
		more, after := s.batch()
		_ = s.dst.flush()
		if after != nil {
			after()
		}
		if !more {
			break
		}
	}
	p := s.c.lane.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	return !s.c.left
}

// batch deals with a number of pieces under one lock. It tells whether there may
// be more, and what to do after the lock is left.
func (s *stream) batch() (more bool, after func()) {
	p := s.c.lane.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	for range maxBatch {
		if s.r == s.w {
			return false, nil
		}
		s.msg = Message{Point: Point{Process: s.c.lane.process, Protocol: s.c.proto, Conn: s.c.id, Dir: s.dir}}
		pc, err := s.codec.next(s.buf[s.r:s.w], &s.msg)
		switch {
		case err != nil:
			return false, s.malformed(err)
		case pc.wait:
			return false, nil
		case !pc.msg:
			s.follow(pc)
		case pc.run > 0 && s.joins(pc):
		default:
			after = s.decide(pc)
		}
		s.r += pc.n
		if after != nil {
			return true, after
		}
	}
	return true, nil
}

// stopped tells whether nothing of this stream passes any more.
func (s *stream) stopped() bool {
	return s.swallow != "" || s.c.left || s.c.lane.Frozen()
}

// follow forwards more of a message that was decided before.
func (s *stream) follow(pc piece) {
	if pc.drop || s.stopped() {
		return
	}
	s.dst.add(pc.data)
	if pc.entry != nil {
		s.c.lane.proxy.rec.grow(*pc.entry, pc.grows)
	}
}

// joins forwards a message that goes into the entry of the one before it, such
// as a further row of a result.
func (s *stream) joins(pc piece) bool {
	if s.run.kind != s.msg.Type || s.stopped() {
		return false
	}
	rec := &s.c.lane.proxy.rec
	s.run.count += pc.run
	if s.run.entry >= 0 {
		rec.kept[s.run.entry].Size += s.msg.Size
		rec.kept[s.run.entry].Detail = runDetail(s.run.count)
	}
	s.dst.add(pc.data)
	s.codec.passed()
	return true
}

func runDetail(count int) string {
	if count == 1 {
		return ""
	}
	return "×" + strconv.Itoa(count)
}

// decide numbers the message in hand, asks about it, and does as told. What it
// returns is to be done after leaving the lock.
func (s *stream) decide(pc piece) (after func()) {
	p, m := s.c.lane.proxy, &s.msg
	if s.c.left || s.c.lane.Frozen() {
		s.codec.dropped()
		return nil
	}
	if m.Step {
		s.index++
		p.steps.Add(1)
	}
	m.Index = s.index
	s.run.kind = ""
	if pc.run > 0 {
		s.run.kind, s.run.count = m.Type, pc.run
		m.Detail = runDetail(pc.run)
	}
	if s.swallow != "" {
		s.struck(s.swallow)
		return nil
	}
	var act Action
	if p.cfg.Decide != nil {
		act = p.cfg.Decide(m)
	}
	delayed := false
	for act.Kind == Hold || act.Kind == Delay && !delayed {
		delayed = act.Kind == Delay
		var live bool
		if act, live = s.wait(act); !live {
			s.interrupted()
			return nil
		}
	}
	entry, after := s.apply(pc, act)
	if pc.run > 0 {
		s.run.entry = entry
	}
	if pc.entry != nil {
		*pc.entry = entry
	}
	return after
}

// interrupted drops a held message because its connection or lane has ended.
// What follows must not overtake it, so the stream ends here.
func (s *stream) interrupted() {
	s.swallow = Freeze
	if s.c.left && !s.c.lane.Frozen() {
		s.swallow = Cut
	}
	s.struck(s.swallow)
}

// wait leaves the ordering lock until a held message may go on, and tells
// whether there is still a connection for it. The way to the other side is kept
// alive meanwhile.
func (s *stream) wait(act Action) (Action, bool) {
	p := s.c.lane.proxy
	beat, every := s.codec.heartbeat()
	p.mu.Unlock()
	defer p.mu.Lock()
	_ = s.dst.flush()

	var timeout, tick <-chan time.Time
	if act.Kind == Delay {
		timer := time.NewTimer(act.For)
		defer timer.Stop()
		timeout, act.Until = timer.C, nil
	}
	if every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case next := <-act.Until: // a closed channel gives a Pass
			return next, !s.over()
		case <-timeout:
			return act, !s.over()
		case <-s.c.lane.stop:
			return act, false
		case <-s.c.gone:
			return act, false
		case <-tick:
			p.mu.Lock()
			if !s.stopped() {
				s.dst.add(beat)
			}
			p.mu.Unlock()
			_ = s.dst.flush()
		}
	}
}

// over tells whether the lane or the connection has ended, without the lock.
// The lock is taken right after, so it is looked at again there.
func (s *stream) over() bool {
	select {
	case <-s.c.lane.stop:
		return true
	case <-s.c.gone:
		return true
	default:
		return false
	}
}

// malformed ends a connection on which a peer broke the protocol.
func (s *stream) malformed(err error) func() {
	p := s.c.lane.proxy
	s.r = s.w
	if s.c.left {
		return s.c.unheard()
	}
	if s.c.lane.Frozen() {
		return nil
	}
	p.log.Error("wire: connection cut: its bytes make no sense", "process", s.c.lane.process, "connection", s.c.id,
		"direction", string(s.dir), "error", err)
	s.msg = Message{
		Point:  Point{Process: s.c.lane.process, Protocol: s.c.proto, Conn: s.c.id, Dir: s.dir, Index: s.index},
		Type:   "malformed",
		Name:   "malformed bytes",
		Detail: clip(err.Error(), p.cfg.MaxDetail),
		Fault:  string(Cut),
	}
	p.rec.add(&s.msg)
	s.swallow = Cut
	var d declined
	if errors.As(err, &d) {
		s.c.down.dst.add(d.answer)
		s.c.polite = true
		s.c.leaveLocked()
		return s.c.part
	}
	s.c.leaveLocked()
	if s.dir == ToClient {
		s.c.answers = false // it would not be understood
	}
	return s.c.cut
}

// drain deals with what the client had sent before the lane began to close.
func (s *stream) drain() {
	for total := 0; total < maxDrain; {
		s.room()
		n, err := readNow(s.src, s.buf[s.w:])
		s.w += n
		total += n
		if n == 0 || err != nil {
			return
		}
		if !s.pump() {
			return
		}
	}
}
