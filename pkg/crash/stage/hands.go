package stage

import (
	"maps"
	"strings"
	"time"

	"crashcourse/pkg/wire"
)

// Hands follows on the wires which deliveries the processes have in hand: those
// that the broker has handed out and that nobody has settled. The zero value has
// seen nothing.
type Hands struct {
	seen    int
	open    map[channel]map[uint64]string // message ids by delivery tag
	noAck   map[channel]bool              // what is delivered here is settled by that
	settled map[string]Settled
	conns   map[int]map[int]bool // the connections of each process to the broker
	cutOff  map[int]time.Time    // processes that have lost their last one
}

// Settled counts the deliveries of one message id, and how they were settled.
type Settled struct{ Delivered, Acked, Requeued, Discarded int }

type channel struct {
	process, conn int
	number        uint16
}

// Source gives the messages that passed after the one numbered seq, as
// [crash.Arena.Since] does.
type Source func(seq int) []wire.Message

// Look takes note of what has passed since it was last called.
func (h *Hands) Look(since Source) {
	if h.open == nil {
		h.open, h.noAck, h.settled = map[channel]map[uint64]string{}, map[channel]bool{}, map[string]Settled{}
		h.conns, h.cutOff = map[int]map[int]bool{}, map[int]time.Time{}
	}
	for _, m := range since(h.seen) {
		h.seen = m.Seq
		if m.Protocol == wire.AMQP {
			h.follow(m)
		}
	}
}

func (h *Hands) follow(m wire.Message) {
	c := channel{m.Process, m.Conn, m.Channel}
	switch {
	case m.Fault == string(wire.Cut) || m.Fault == string(wire.Shutdown) || m.Type == "connection.close":
		h.lost(m.Process, m.Conn)
	case m.Type == "connection.open-ok":
		if h.conns[m.Process] == nil {
			h.conns[m.Process] = map[int]bool{}
		}
		h.conns[m.Process][m.Conn] = true
		delete(h.cutOff, m.Process)
	case m.Type == "basic.consume":
		h.noAck[c] = strings.HasSuffix(m.Detail, wire.NoAck)
	case m.Type == "channel.close" || m.Type == "basic.recover":
		delete(h.open, c)
	case m.Effect == wire.Deliver:
		if h.open[c] == nil {
			h.open[c] = map[uint64]string{}
		}
		if !h.noAck[c] {
			h.open[c][m.DeliveryTag] = m.MessageID
		}
		s := h.settled[m.MessageID]
		s.Delivered++
		h.settled[m.MessageID] = s
	case m.Effect == wire.Ack && (m.Fault == "" || m.Fault == string(wire.Delay)):
		for tag, id := range h.open[c] {
			if tag == m.DeliveryTag || m.Multiple && (tag < m.DeliveryTag || m.DeliveryTag == 0) {
				h.settle(id, m)
				delete(h.open[c], tag)
			}
		}
	}
}

func (h *Hands) settle(id string, m wire.Message) {
	s := h.settled[id]
	switch {
	case m.Type == "basic.ack":
		s.Acked++
	case m.Detail == "requeued":
		s.Requeued++
	default:
		s.Discarded++
	}
	h.settled[id] = s
}

func (h *Hands) lost(process, conn int) {
	maps.DeleteFunc(h.open, func(c channel, _ map[uint64]string) bool { return c.process == process && c.conn == conn })
	delete(h.conns[process], conn)
	if len(h.conns[process]) == 0 {
		h.cutOff[process] = time.Now()
	}
}

// CutOff gives the processes that live, have lost their connection to the broker,
// and have not made another: since when.
func (h *Hands) CutOff() map[int]time.Time { return h.cutOff }

// Ended says that a process has ended: the broker takes back what it had.
func (h *Hands) Ended(process int) {
	maps.DeleteFunc(h.open, func(c channel, _ map[uint64]string) bool { return c.process == process })
	delete(h.conns, process)
	delete(h.cutOff, process)
}

// Holds counts the deliveries in hand that have this message id.
func (h *Hands) Holds(id string) (n int) {
	for _, open := range h.open {
		for _, have := range open {
			if have == id {
				n++
			}
		}
	}
	return n
}

// All counts the deliveries in hand.
func (h *Hands) All() (n int) {
	for _, open := range h.open {
		n += len(open)
	}
	return n
}

// Free says that a process has been handed something, and has settled all of it.
func (h *Hands) Free(process int) bool {
	served := false
	for c, open := range h.open {
		if c.process == process {
			if len(open) > 0 {
				return false
			}
			served = true
		}
	}
	return served
}

// Of counts the deliveries that have this message id.
func (h *Hands) Of(id string) Settled { return h.settled[id] }
