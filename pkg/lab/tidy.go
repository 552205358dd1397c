package lab

import (
	"strings"

	"crashcourse/pkg/wire"
)

// lasts says whether a message may change what outlives the process, or tells
// of such a change.
func lasts(m *wire.Message) bool {
	switch m.Effect {
	case wire.Write, wire.Publish, wire.Ack, wire.Confirm, wire.Deliver, wire.Return, wire.Call:
		return true
	}
	return false
}

// stream names a connection of a process.
type stream struct {
	process  int
	protocol wire.Protocol
	conn     int
}

// look is a statement, or a transaction, with its answers.
type look struct {
	names   strings.Builder
	members []int // what see was told of its messages
	lasts   bool
}

// lookout divides conversations with PostgreSQL into looks, to know idle ones: a
// relay that waits for work asks the same question again and again.
type lookout struct {
	open   map[stream]*look
	before map[stream]string // the idle look before
	inTx   map[stream]bool
}

func newLookout() *lookout {
	return &lookout{open: map[stream]*look{}, before: map[stream]string{}, inTx: map[stream]bool{}}
}

// see takes in the next message, known to the caller as i. When that message
// ends a look, and the look has found no more than the one before it on the same
// connection, see returns it.
func (o *lookout) see(i int, m *wire.Message) (idle *look) {
	if !m.Step || m.Protocol != wire.PG {
		return nil
	}
	s := stream{m.Process, m.Protocol, m.Conn}
	if m.Dir == wire.ToServer {
		if !o.inTx[s] {
			idle = o.end(s)
		}
		switch {
		case m.Name == "BEGIN":
			o.inTx[s] = true
		case m.Effect == wire.Commit || m.Effect == wire.Rollback:
			o.inTx[s] = false
		}
	}
	l := o.open[s]
	if l == nil {
		l = &look{}
		o.open[s] = l
	}
	l.members = append(l.members, i)
	l.names.WriteString(m.Name + "\n")
	l.lasts = l.lasts || lasts(m) || m.Fault != ""
	return idle
}

// end ends the look of a connection.
func (o *lookout) end(s stream) (idle *look) {
	l := o.open[s]
	delete(o.open, s)
	switch {
	case l == nil:
		return nil
	case l.lasts:
		delete(o.before, s)
		return nil
	case o.before[s] == l.names.String():
		return l
	}
	o.before[s] = l.names.String()
	return nil
}

// tidy makes a trace fit to be drawn. It drops what is no step, and of idle
// looks, one after the other, all but the first. Of a run that ended because
// nothing more happened, it drops the looks at the end.
func tidy(t wire.Trace, calm bool) wire.Trace {
	drop := make([]bool, len(t.Messages))
	skip := func(l *look) {
		if l != nil {
			for _, i := range l.members {
				drop[i] = true
			}
		}
	}
	o := newLookout()
	last := -1
	for i := range t.Messages {
		m := &t.Messages[i]
		if lasts(m) || m.Fault != "" {
			last = i
		}
		drop[i] = !m.Step
		skip(o.see(i, m))
	}
	for s := range o.open {
		skip(o.end(s))
	}
	out := t
	out.Messages = nil
	for i, m := range t.Messages {
		if calm && last >= 0 && i > last && m.Step && m.Dir == wire.ToServer && m.Effect == wire.NoEffect {
			break
		}
		if !drop[i] {
			out.Messages = append(out.Messages, m)
		}
	}
	return out
}
