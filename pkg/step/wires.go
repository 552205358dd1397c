package step

import (
	"slices"
	"time"

	"crashcourse/pkg/wire"
)

// decide is called under the proxy's ordering lock.
func (s *Session) decide(r *run, m *wire.Message) wire.Action {
	if !m.Step {
		return wire.Action{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.over {
		return wire.Action{Kind: wire.Hold} // until the lane closes
	}
	for _, a := range r.procs {
		if a.life.Process == m.Process && (a.gone || a.ended && m.Dir == wire.ToClient) {
			return wire.Action{} // there is nobody left to step
		}
	}
	h := &held{message: *m, pass: make(chan wire.Action, 1)}
	r.pending = append(r.pending, h)
	s.stir(r)
	return wire.Action{Kind: wire.Hold, Until: h.pass}
}

// passed is called under the proxy's ordering lock.
func (s *Session) passed(r *run, m *wire.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.settle(m.Point, m.Step)
	s.stir(r)
}

// stir notes that something has happened. The caller holds mu.
func (s *Session) stir(r *run) {
	r.moved, r.stirred = time.Now(), true
	s.tell()
}

// tell wakes those who wait for a change. The caller holds mu.
func (s *Session) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// settle forgets a message that waits no longer.
func (r *run) settle(at wire.Point, step bool) {
	if step {
		r.pending = slices.DeleteFunc(r.pending, func(h *held) bool { return h.message.Point == at })
	}
}

// drop forgets what waits of a process.
func (r *run) drop(process int) {
	r.pending = slices.DeleteFunc(r.pending, func(h *held) bool { return h.message.Process == process })
}

// take takes over what the proxy has recorded since the last time. What was
// held when its connection ended never passed, unless it is where a fault
// struck.
func (s *Session) take(r *run) {
	r.taking.Lock()
	defer r.taking.Unlock()
	s.mu.Lock()
	from := r.read
	s.mu.Unlock()
	news := r.proxy.Since(from) // which may wait for decide, and that for mu
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range news {
		r.read = m.Seq
		if m.Fault != "" {
			r.settle(m.Point, m.Step)
			fault, ours := r.struck[m.Point]
			switch {
			case !m.Step:
				continue
			case ours:
				m.Fault = string(fault)
			case m.Fault != string(wire.Blackhole):
				continue
			}
		}
		if m.Step {
			r.trace.Messages = append(r.trace.Messages, m)
		}
	}
}

// state is called with the session's mu held.
func (r *run) state() State {
	waiting := slices.ContainsFunc(r.pending, func(h *held) bool { return !h.decided })
	alive := slices.ContainsFunc(r.procs, func(a *actor) bool { return !a.gone })
	switch {
	case waiting:
		return Waiting
	case alive:
		return Running
	}
	for _, a := range r.last() {
		if a.fate != "" || !a.End().Well() {
			return Crashed
		}
	}
	return Ended
}

// last returns the newest process of each slot.
func (r *run) last() []*actor {
	var last []*actor
	for _, a := range r.procs {
		if a.life.Slot == len(last) {
			last = append(last, nil)
		}
		last[a.life.Slot] = a
	}
	return last
}
