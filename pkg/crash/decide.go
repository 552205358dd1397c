package crash

import (
	"reflect"
	"time"

	"crashcourse/pkg/wire"
)

// named gives the faults in a trace the names they have here: the wire only
// knows what it did for them.
func (n *run) named(t wire.Trace) wire.Trace {
	for i := range t.Messages {
		m := &t.Messages[i]
		for _, s := range n.struck {
			if m.Step && m.Point == s.At {
				m.Fault = string(s.Fault)
			}
		}
	}
	return t
}

// decide is called under the wires' ordering lock.
func (n *run) decide(m *wire.Message) wire.Action {
	if !m.Step {
		return wire.Action{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lastStep = time.Now()
	switch m.Effect {
	case wire.Write, wire.Publish, wire.Ack, wire.Confirm, wire.Deliver, wire.Return, wire.Call:
		n.lastWork = n.lastStep
	}
	n.steps[m.Process]++
	if m.Fault == string(wire.Nack) && !n.ending {
		return wire.Action{Kind: wire.Delay, For: slowNack}
	}
	if n.ending {
		return wire.Action{}
	}
	if n.next >= len(n.schedule) {
		return n.filmed(m)
	}
	s := n.schedule[n.next]
	if s.Nth > 0 {
		if m.Protocol != s.At.Protocol || m.Dir != s.At.Dir || kindOf(m) != s.Kind || (n.processes() == 1 && m.Process != s.At.Process) {
			return n.filmed(m)
		}
		n.counts[s.String()]++
		if n.counts[s.String()] != s.Nth {
			return n.filmed(m)
		}
	} else if m.Point != s.At {
		return n.filmed(m)
	}
	n.next++
	n.struck = append(n.struck, Strike{At: m.Point, Message: m.Name, Fault: s.Fault})
	n.struckAt = n.lastStep
	action := s.Fault.action()
	if s.Fault == Delay || s.Fault == Expire {
		n.release = make(chan wire.Action)
		action.Until = n.release
	}
	n.strikes <- n.procs[m.Process] // has room for every strike of the schedule
	return action
}

// filmed holds back a message that tells of something lasting until the tables
// have been looked at. The caller holds mu.
func (n *run) filmed(m *wire.Message) wire.Action {
	if !n.film || m.Dir != wire.ToClient || m.Effect == wire.NoEffect {
		return wire.Action{}
	}
	pass := make(chan wire.Action, 1)
	select {
	case n.looks <- pass:
		return wire.Action{Kind: wire.Hold, Until: pass}
	default:
		return wire.Action{} // a scene less
	}
}

// scene adds what the tables hold now to the film.
func (n *run) scene(tables []Table) {
	s := Scene{After: n.proxy.Recorded(), Tables: tables}
	if k := len(n.result.scenes); k > 0 && reflect.DeepEqual(n.result.scenes[k-1].Tables, tables) {
		return
	}
	n.result.scenes = append(n.result.scenes, s)
}

// observe is called under the wires' ordering lock.
func (n *run) observe(m *wire.Message) {
	if m.Dir == wire.ToClient && m.Step {
		n.poke()
	}
}

func (n *run) poke() {
	select {
	case n.activity <- struct{}{}:
	default:
	}
}
