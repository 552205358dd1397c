package wire

import (
	"slices"
	"time"
)

// amqpSession is what the two directions of an AMQP connection know together.
// It is guarded by the ordering lock.
type amqpSession struct {
	open      bool // connection.open-ok has arrived
	closing   bool // connection.close has been sent to the server
	closed    bool // the server has answered it, or has closed of itself
	heartbeat time.Duration
	channels  map[uint16]*amqpChannel

	upInFrame   bool // in the middle of a frame that is too long to hold
	downInFrame bool
}

// amqpChannel is what is known about a channel.
type amqpChannel struct {
	confirms  bool
	published uint64   // since confirm.select
	refused   []uint64 // publishes that a nack fault struck and that are not confirmed yet, ascending
	ackedUpTo uint64   // the highest multiple ack seen

	rejected    []uint64        // publishes whose nack goes out ahead of the next confirm
	told        []uint64        // those of which the client has been told, until those around them are settled
	waiting     []uint64        // acks that the client has not been told of meanwhile
	settledUpTo uint64          // the broker has settled all up to this one
	settled     map[uint64]bool // and these
}

func (s *amqpSession) channel(id uint16) *amqpChannel {
	c := s.channels[id]
	if c == nil {
		c = &amqpChannel{settled: map[uint64]bool{}}
		s.channels[id] = c
	}
	return c
}

func (s *amqpSession) shutdown() ([]byte, bool) {
	if !s.open || s.downInFrame {
		return nil, true
	}
	return amqpFrame(amqpFrameMethod, 0, amqpArgs(amqpClose, uint16(320),
		"CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'", uint16(0), uint16(0))), true
}

// leave asks the broker to close. It answers only after every channel has dealt
// with all it was sent and has given back what it had not settled. A broken
// connection would end the channels at some moment before that.
func (s *amqpSession) leave() ([]byte, bool) {
	if s.closed || !s.open || s.upInFrame {
		return nil, false
	}
	if s.closing {
		return nil, true
	}
	s.closing = true
	return amqpFrame(amqpFrameMethod, 0, amqpArgs(amqpClose, uint16(200), "the client is gone", uint16(0), uint16(0))), true
}

func (s *amqpSession) left() bool { return s.closed }

func (s *amqpSession) busy() bool { return false }

func (s *amqpSession) unanswered() int { return 0 }

// confirmed says what to tell the client in place of an ack of the broker's,
// where some of its publishes were struck. Where none was, changed is false.
//
// What follows a rejection is told as a busy broker tells it: the acks of those
// before it wait for those behind it, and one settles them all.
func (c *amqpChannel) confirmed(tag uint64, multiple bool) (out []amqpSettle, changed bool) {
	if tag == 0 { // all
		tag = c.published
	}
	fresh := c.note(tag, multiple)
	for _, t := range c.rejected {
		out = append(out, amqpSettle{tag: t, fault: Reject})
	}
	c.told = append(c.told, c.rejected...)
	c.rejected = nil
	if len(c.told) == 0 {
		out = c.splitAck(tag, multiple)
		return out, out != nil
	}
	for _, t := range fresh {
		if !slices.Contains(c.told, t) {
			c.waiting = append(c.waiting, t)
		}
	}
	if last := slices.Max(c.told); c.settledUpTo <= last && c.settledUpTo < c.published {
		return out, true // more is to come
	}
	slices.Sort(c.waiting)
	n, _ := slices.BinarySearch(c.waiting, c.settledUpTo+1)
	if n > 0 {
		out = append(out, c.asAck(c.waiting[n-1], true)...)
	}
	for _, t := range c.waiting[n:] {
		out = append(out, c.asAck(t, false)...)
	}
	c.told, c.waiting = nil, nil
	return out, true
}

// note takes in what the broker has settled, and returns what it had not before.
func (c *amqpChannel) note(tag uint64, multiple bool) (fresh []uint64) {
	first := tag
	if multiple {
		first = c.settledUpTo + 1
	}
	for t := first; t <= min(tag, c.published); t++ {
		if !c.settled[t] {
			c.settled[t] = true
			fresh = append(fresh, t)
		}
	}
	for c.settled[c.settledUpTo+1] {
		c.settledUpTo++
		delete(c.settled, c.settledUpTo)
	}
	return fresh
}

// asAck is an ack as the client is to see it.
func (c *amqpChannel) asAck(tag uint64, multiple bool) []amqpSettle {
	if split := c.splitAck(tag, multiple); split != nil {
		return split
	}
	return []amqpSettle{{tag: tag, multiple: multiple}}
}

// splitAck takes the refused publishes that an ack settles out of the channel,
// and returns what to tell the client in its place; nil when there are none.
func (c *amqpChannel) splitAck(tag uint64, multiple bool) []amqpSettle {
	var hit []uint64
	if multiple {
		n, _ := slices.BinarySearch(c.refused, tag+1)
		hit, c.refused = c.refused[:n:n], c.refused[n:]
	} else if i, ok := slices.BinarySearch(c.refused, tag); ok {
		hit = []uint64{tag}
		c.refused = slices.Delete(slices.Clone(c.refused), i, i+1)
	}
	low := c.ackedUpTo
	if multiple {
		c.ackedUpTo = max(c.ackedUpTo, tag)
	}
	if len(hit) == 0 {
		return nil
	}
	var out []amqpSettle
	for _, t := range hit {
		if multiple && t > low+1 {
			out = append(out, amqpSettle{tag: t - 1, multiple: true})
		}
		out = append(out, amqpSettle{tag: t, fault: Nack})
		low = t
	}
	if multiple && tag > low {
		out = append(out, amqpSettle{tag: tag, multiple: true})
	}
	return out
}

// amqpSettle is one confirm.
type amqpSettle struct {
	tag      uint64
	multiple bool
	fault    ActionKind // Nack or Reject: it is a basic.nack
}
