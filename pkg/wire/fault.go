package wire

// apply does with the message in hand what act says, and records it. It returns
// the message's entry in the trace, and what is to be done after leaving the
// ordering lock.
func (s *stream) apply(pc piece, act Action) (entry int, after func()) {
	p, m, c := s.c.lane.proxy, &s.msg, s.c
	if c.left || c.lane.Frozen() {
		s.codec.dropped()
		return -1, nil
	}
	switch act.Kind {
	case Freeze:
		c.lane.freeze()
		return s.struck(Freeze), nil
	case Cut:
		c.leaveLocked()
		return s.struck(Cut), c.cut
	case Shutdown:
		if goodbye, ok := c.session.shutdown(); ok {
			c.down.dst.add(goodbye)
			c.polite = true
			c.leaveLocked()
			return s.struck(Shutdown), c.part
		}
	case Blackhole:
		s.swallow = Blackhole
		return s.struck(Blackhole), nil
	case Nack, Reject:
		if data, ok := s.codec.nack(act.Kind == Reject); ok {
			return s.replaced(act.Kind, data), nil
		}
	case Fail:
		if data, ok := s.codec.fail(act.SQLState); ok {
			return s.replaced(Fail, data), nil
		}
		if data, answer, ok := s.codec.refuse(); ok {
			return s.replaced(Fail, nil), c.answer(data, answer)
		}
	case Duplicate:
		if p.cfg.Twin != nil && s.codec.twin(p.deliverTwin) {
			m.Fault = string(Duplicate)
		}
	case Delay:
		m.Fault = string(Delay)
	}
	s.dst.add(pc.data)
	s.codec.passed()
	entry = p.rec.add(m)
	if p.cfg.Observe != nil {
		p.cfg.Observe(m)
	}
	return entry, nil
}

// answer gives the client what a fault says in the server's place, as a step of
// the stream from the server. Nobody is asked about it. What it returns is to be
// done after leaving the ordering lock.
func (c *conn) answer(data []byte, m Message) (after func()) {
	s, p := c.down, c.lane.proxy
	s.index++
	p.steps.Add(1)
	s.run.kind = ""
	m.Point = Point{Process: c.lane.process, Protocol: c.proto, Conn: c.id, Dir: ToClient, Index: s.index}
	if s.swallow != "" {
		m.Fault = string(s.swallow)
		p.rec.add(&m)
		return nil
	}
	s.dst.add(data)
	p.rec.add(&m)
	if p.cfg.Observe != nil {
		p.cfg.Observe(&m)
	}
	return func() { _ = s.dst.flush() }
}

// struck records a message that does not pass.
func (s *stream) struck(fault ActionKind) int {
	s.codec.dropped()
	s.msg.Fault = string(fault)
	return s.c.lane.proxy.rec.add(&s.msg)
}

// replaced records a message in whose place another goes out.
func (s *stream) replaced(fault ActionKind, data []byte) int {
	s.dst.add(data)
	s.msg.Fault = string(fault)
	p := s.c.lane.proxy
	entry := p.rec.add(&s.msg)
	if p.cfg.Observe != nil {
		p.cfg.Observe(&s.msg)
	}
	return entry
}
