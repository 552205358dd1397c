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
}

func (s *amqpSession) channel(id uint16) *amqpChannel {
	c := s.channels[id]
	if c == nil {
		c = &amqpChannel{}
		s.channels[id] = c
	}
	return c
}

func (s *amqpSession) shutdown() []byte {
	if !s.open || s.downInFrame {
		return nil
	}
	return amqpFrame(amqpFrameMethod, 0, amqpArgs(amqpClose, uint16(320),
		"CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'", uint16(0), uint16(0)))
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

// splitAck takes the refused publishes that an ack settles out of the channel,
// and returns what to tell the client in its place; nil when there are none.
func (c *amqpChannel) splitAck(tag uint64, multiple bool) []amqpSettle {
	var hit []uint64
	if multiple {
		n := len(c.refused)
		if tag != 0 { // 0 means all
			n, _ = slices.BinarySearch(c.refused, tag+1)
		} else {
			tag = c.published
		}
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
		out = append(out, amqpSettle{tag: t, nack: true})
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
	nack     bool
}
