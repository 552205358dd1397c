package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
)

// Frame types.
const (
	amqpFrameMethod    = 1
	amqpFrameHeader    = 2
	amqpFrameBody      = 3
	amqpFrameHeartbeat = 8
	amqpFrameEnd       = 0xCE
)

const (
	// maxMethodFrame is the longest method, header or heartbeat frame accepted.
	// Brokers negotiate 128 KiB.
	maxMethodFrame = 1 << 20
	// maxBodyFrame is the longest body frame that is forwarded as a whole.
	maxBodyFrame = 256 << 10
	// maxHeld bounds what is held back of unfinished messages, over all channels
	// of a direction: above it, messages are decided on what has arrived.
	maxHeld = 1 << 20
	// maxTwin is the largest body that a duplicate is made of.
	maxTwin = 16 << 20
)

// amqpCodec is the codec of either direction of an AMQP connection.
type amqpCodec struct {
	s      *amqpSession
	dir    Direction
	detail int

	begun    bool // the protocol header has been framed
	contents map[uint16]*amqpContent
	held     int    // bytes in the heads of all undecided contents
	free     []byte // a head to use again
	rest     int64  // bytes still to come of a long body frame
	restOf   *amqpContent

	// The message framed last, for passed and for the faults.
	method  amqpMethod
	channel uint16
	content *amqpContent
	splits  []amqpSettle // confirms still to be told in place of the one in the input
	splitN  int          // bytes of the input that it takes
}

// amqpContent is a method with its header and body, while they arrive.
type amqpContent struct {
	method   amqpMethod
	msg      Message
	head     []byte // held back until the message is decided
	props    []byte // of head: the content header's payload
	bodyAt   int    // where the first body frame begins in head
	size     uint64 // of the whole body
	got      uint64 // of the body, so far
	headed   bool   // the header has arrived
	decided  bool
	dropped  bool
	finished bool
	entry    int // in the trace
	twin     *amqpTwin
}

func newAMQPCodec(s *amqpSession, dir Direction, detail int) *amqpCodec {
	return &amqpCodec{s: s, dir: dir, detail: detail, contents: make(map[uint16]*amqpContent)}
}

func (c *amqpCodec) next(in []byte, m *Message) (piece, error) {
	c.content = nil
	c.method = amqpMethod{}
	if c.rest > 0 {
		return c.streamed(in), nil
	}
	if len(c.splits) > 0 {
		return c.split(m), nil
	}
	if !c.begun {
		if p, done := c.begin(in, m); done {
			return p, nil
		}
	}
	if len(in) < 7 {
		return piece{wait: true}, nil
	}
	kind, channel, size := in[0], binary.BigEndian.Uint16(in[1:]), binary.BigEndian.Uint32(in[3:])
	total := int64(size) + 8
	switch kind {
	case amqpFrameMethod, amqpFrameHeader, amqpFrameHeartbeat:
		if total > maxMethodFrame {
			return piece{}, fmt.Errorf("AMQP frame of type %d says it is %d bytes long", kind, size)
		}
	case amqpFrameBody:
		if total > maxBodyFrame {
			if len(in) < maxWhole {
				return piece{wait: true}, nil
			}
			return c.longBody(channel, in[:maxWhole], total, m)
		}
	default:
		return piece{}, fmt.Errorf("AMQP frame of unknown type %d", kind)
	}
	if int64(len(in)) < total {
		return piece{wait: true}, nil
	}
	frame := in[:total]
	if frame[total-1] != amqpFrameEnd {
		return piece{}, fmt.Errorf("AMQP frame of %d bytes does not end where it says", size)
	}
	payload := frame[7 : total-1]
	switch kind {
	case amqpFrameMethod:
		return c.onMethod(channel, frame, payload, m)
	case amqpFrameHeader:
		return c.onHeader(channel, frame, payload, m)
	case amqpFrameBody:
		return c.onBody(channel, frame, uint64(size), m)
	}
	m.Type, m.Name, m.Size, m.Channel = "heartbeat", "heartbeat", total, channel
	return piece{n: int(total), data: frame, msg: true, run: 1}, nil
}

// begin frames the protocol header, which a client always sends first and a
// broker sends only to refuse a version.
func (c *amqpCodec) begin(in []byte, m *Message) (piece, bool) {
	magic := []byte("AMQP")
	n := min(len(in), len(magic))
	if !bytes.Equal(in[:n], magic[:n]) {
		c.begun = true
		return piece{}, false
	}
	if len(in) < 8 {
		return piece{wait: true}, true
	}
	c.begun = true
	m.Type, m.Name, m.Size = "protocol header", "protocol header", 8
	m.Detail = fmt.Sprintf("AMQP %d-%d-%d", in[5], in[6], in[7])
	return piece{n: 8, data: in[:8], msg: true}, true
}

func (c *amqpCodec) onMethod(channel uint16, frame, payload []byte, m *Message) (piece, error) {
	if len(payload) < 4 {
		return piece{}, fmt.Errorf("AMQP method of %d bytes", len(payload))
	}
	m.Channel, m.Size = channel, int64(len(frame))
	method := parseMethod(payload, c.dir, m, c.detail)
	if old := c.contents[channel]; old != nil {
		return piece{}, fmt.Errorf("AMQP %s on channel %d before the body of %s was complete", m.Type, channel, old.msg.Type)
	}
	if method.id.hasContent() {
		if c.held > 8*maxHeld {
			return piece{}, fmt.Errorf("AMQP peer began more messages than it finished")
		}
		ct := &amqpContent{method: method, msg: *m, head: append(c.free[:0], frame...), entry: -1}
		c.free = nil
		c.held += len(frame)
		c.contents[channel] = ct
		return piece{n: len(frame), drop: true}, nil
	}
	c.method, c.channel = method, channel
	if c.dir == ToClient {
		c.arrived(channel, method)
		switch method.id {
		case amqpNack: // the broker's own
			c.s.channel(channel).note(method.tag, method.multiple)
		case amqpAck:
			told, changed := c.s.channel(channel).confirmed(method.tag, method.multiple)
			if len(told) > 0 {
				c.splits, c.splitN = told, len(frame)
				return c.split(m), nil
			}
			if changed {
				return piece{n: len(frame), drop: true}, nil
			}
		}
	}
	return piece{n: len(frame), data: frame, msg: true}, nil
}

// arrived takes in what the server says, which holds whether the client hears
// it or not.
func (c *amqpCodec) arrived(channel uint16, method amqpMethod) {
	switch method.id {
	case amqpOpenOK:
		c.s.open = true
	case amqpClose, amqpCloseOK:
		c.s.closed = true
	case amqpChanClose:
		delete(c.s.channels, channel)
	}
}

// split returns the next of the confirms told in place of one.
func (c *amqpCodec) split(m *Message) piece {
	s := c.splits[0]
	c.splits = c.splits[1:]
	id, bits := amqpAck, byte(0)
	if s.multiple {
		bits = 1
	}
	*m = Message{Point: m.Point}
	if s.fault != Pass {
		id = amqpNack
		m.Fault = string(s.fault)
	}
	payload := amqpArgs(id, s.tag, bits)
	c.method = parseMethod(payload, c.dir, m, c.detail)
	frame := amqpFrame(amqpFrameMethod, c.channel, payload)
	m.Channel, m.Size = c.channel, int64(len(frame))
	p := piece{data: frame, msg: true}
	if len(c.splits) == 0 {
		p.n = c.splitN
	}
	return p
}

func (c *amqpCodec) onHeader(channel uint16, frame, payload []byte, m *Message) (piece, error) {
	ct := c.contents[channel]
	if ct == nil || ct.headed {
		return piece{}, fmt.Errorf("AMQP content header on channel %d without a method before it", channel)
	}
	if len(payload) < 14 {
		return piece{}, fmt.Errorf("AMQP content header of %d bytes", len(payload))
	}
	ct.headed = true
	ct.size = binary.BigEndian.Uint64(payload[4:])
	at := len(ct.head) + 7
	ct.head = append(ct.head, frame...)
	ct.props = ct.head[at : at+len(payload)]
	ct.bodyAt = len(ct.head)
	c.held += len(frame)
	ct.msg.MessageID = messageID(payload[12:])
	if ct.size == 0 {
		return c.ready(channel, ct, len(frame), m), nil
	}
	return piece{n: len(frame), drop: true}, nil
}

func (c *amqpCodec) onBody(channel uint16, frame []byte, size uint64, m *Message) (piece, error) {
	ct, err := c.bodyOf(channel, size)
	if err != nil {
		return piece{}, err
	}
	if ct.decided {
		if ct.twin != nil {
			ct.twin.add(frame[7 : len(frame)-1])
		}
		c.finish(channel, ct)
		return piece{n: len(frame), data: frame, drop: ct.dropped, grows: int64(len(frame)), entry: &ct.entry}, nil
	}
	ct.head = append(ct.head, frame...)
	c.held += len(frame)
	if ct.got == ct.size || len(ct.head) >= maxWhole || c.held >= maxHeld {
		return c.ready(channel, ct, len(frame), m), nil
	}
	return piece{n: len(frame), drop: true}, nil
}

// bodyOf returns the content that a body frame belongs to.
func (c *amqpCodec) bodyOf(channel uint16, size uint64) (*amqpContent, error) {
	ct := c.contents[channel]
	if ct == nil || !ct.headed {
		return nil, fmt.Errorf("AMQP body on channel %d without a header before it", channel)
	}
	if size > ct.size-ct.got {
		return nil, fmt.Errorf("AMQP body on channel %d is longer than the %d bytes that its header says", channel, ct.size)
	}
	ct.got += size
	return ct, nil
}

// longBody deals with the first part of a body frame that is too long to hold.
func (c *amqpCodec) longBody(channel uint16, part []byte, total int64, m *Message) (piece, error) {
	ct, err := c.bodyOf(channel, uint64(total-8))
	if err != nil {
		return piece{}, err
	}
	c.rest, c.restOf = total-int64(len(part)), ct
	p := piece{n: len(part), data: part, drop: ct.dropped, grows: int64(len(part)), entry: &ct.entry}
	if ct.decided {
		if ct.twin != nil {
			ct.twin.add(part[7:])
		}
	} else {
		ct.head = append(ct.head, part...)
		c.held += len(part)
		p = c.ready(channel, ct, len(part), m)
	}
	c.inFrame(!ct.dropped)
	return p, nil
}

func (c *amqpCodec) inFrame(yes bool) {
	if c.dir == ToServer {
		c.s.upInFrame = yes
	} else {
		c.s.downInFrame = yes
	}
}

// streamed deals with more of a long body frame.
func (c *amqpCodec) streamed(in []byte) piece {
	n := int(min(c.rest, int64(len(in))))
	if n == 0 {
		return piece{wait: true}
	}
	ct := c.restOf
	c.rest -= int64(n)
	body := in[:n]
	if c.rest == 0 {
		body = body[:n-1] // without the frame's end
		c.inFrame(false)
	}
	if ct.twin != nil {
		ct.twin.add(body)
	}
	p := piece{n: n, data: in[:n], drop: ct.dropped, grows: int64(n), entry: &ct.entry}
	if c.rest == 0 {
		c.finish(ct.msg.Channel, ct)
		c.restOf = nil
	}
	return p
}

// ready hands a content over to be decided.
func (c *amqpCodec) ready(channel uint16, ct *amqpContent, n int, m *Message) piece {
	ct.decided = true
	c.held -= len(ct.head)
	point := m.Point
	*m = ct.msg
	m.Point = point
	m.Size = int64(len(ct.head))
	if m.Detail == "" {
		m.Detail = describeBody(ct.bodyStart(c.detail), ct.size, c.detail)
	}
	c.method, c.channel, c.content = ct.method, channel, ct
	if ct.method.id == amqpPublish {
		if ch := c.s.channel(channel); ch.confirms {
			m.DeliveryTag = ch.published + 1
		}
	}
	c.finish(channel, ct)
	return piece{n: n, data: ct.head, msg: true, entry: &ct.entry}
}

// bodyStart returns the first bytes of the body: those in the first body frame.
func (ct *amqpContent) bodyStart(max int) []byte {
	b := ct.head[ct.bodyAt:]
	if len(b) < 7 {
		return nil
	}
	size := int64(binary.BigEndian.Uint32(b[3:]))
	b = b[7:]
	return b[:min(int64(len(b)), size, int64(max)+8)]
}

// finish forgets a content that is complete.
func (c *amqpCodec) finish(channel uint16, ct *amqpContent) {
	if ct.got < ct.size || c.rest > 0 || ct.finished {
		return
	}
	ct.finished = true
	delete(c.contents, channel)
	if ct.twin != nil {
		ct.twin.done()
	}
}

func (c *amqpCodec) passed() {
	c.release()
	if c.dir == ToClient {
		return
	}
	switch c.method.id {
	case amqpTuneOK:
		c.s.heartbeat = c.method.heartbeat
	case amqpClose:
		c.s.closing = true
	case amqpCloseOK:
		c.s.closed = true
	case amqpChannelOpen:
		delete(c.s.channels, c.channel)
	case amqpSelect:
		c.s.channel(c.channel).confirms = true
	case amqpPublish:
		if ch := c.s.channel(c.channel); ch.confirms {
			ch.published++
		}
	}
}

// release keeps the head of a content that went out for the next one.
func (c *amqpCodec) release() {
	if ct := c.content; ct != nil && cap(ct.head) <= maxSpare && c.free == nil {
		c.free, ct.head, ct.props = ct.head[:0], nil, nil
	}
}

func (c *amqpCodec) dropped() {
	if c.content != nil {
		c.content.dropped = true
		if c.rest > 0 && c.restOf == c.content {
			c.inFrame(false)
		}
	}
}

func (c *amqpCodec) fail(string) ([]byte, bool) { return nil, false }

func (c *amqpCodec) refuse() ([]byte, Message, bool) { return nil, Message{}, false }

func (c *amqpCodec) heartbeat() ([]byte, time.Duration) {
	if !c.s.open || c.s.heartbeat == 0 {
		return nil, 0
	}
	return amqpFrame(amqpFrameHeartbeat, 0, nil), c.s.heartbeat / 2
}
