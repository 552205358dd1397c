package lab

import (
	"strings"

	"crashcourse/pkg/wire"
)

// lasts says whether a message may change what outlives the process, or tells
// of such a change.
func lasts(m *wire.Message) bool {
	switch m.Effect {
	case wire.Write, wire.Publish, wire.Ack, wire.Confirm, wire.Deliver, wire.Return:
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
	members []int // places in the trace
	lasts   bool
}

// tidy makes a trace fit to be drawn. A relay that waits for work looks for it
// again and again: of looks that find nothing, one after the other on the same
// connection, it keeps the first. It also drops what is no step. Of a run that
// ended because nothing more happened, it drops the looks at the end.
func tidy(t wire.Trace, calm bool) wire.Trace {
	drop := make([]bool, len(t.Messages))
	open := map[stream]*look{}
	before := map[stream]string{} // the idle look before
	inTx := map[stream]bool{}
	end := func(s stream) {
		l := open[s]
		if l == nil {
			return
		}
		delete(open, s)
		if l.lasts {
			delete(before, s)
			return
		}
		if before[s] == l.names.String() {
			for _, i := range l.members {
				drop[i] = true
			}
		}
		before[s] = l.names.String()
	}
	last := -1
	for i := range t.Messages {
		m := &t.Messages[i]
		if lasts(m) || m.Fault != "" {
			last = i
		}
		if !m.Step {
			drop[i] = true
			continue
		}
		s := stream{m.Process, m.Protocol, m.Conn}
		if m.Protocol != wire.PG {
			continue
		}
		if m.Dir == wire.ToServer && !inTx[s] {
			end(s)
		}
		if m.Dir == wire.ToServer {
			switch {
			case m.Name == "BEGIN":
				inTx[s] = true
			case m.Effect == wire.Commit || m.Effect == wire.Rollback:
				inTx[s] = false
			}
		}
		l := open[s]
		if l == nil {
			l = &look{}
			open[s] = l
		}
		l.members = append(l.members, i)
		l.names.WriteString(m.Name + "\n")
		l.lasts = l.lasts || lasts(m) || m.Fault != ""
	}
	for s := range open {
		end(s)
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
