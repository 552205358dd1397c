package wire

import (
	"crypto/rand"
)

// nack sends a publish to the default exchange with a routing key that is no
// queue's name. The broker drops it and confirms its tag, and that confirm is
// turned into a basic.nack on its way back, in its place among the others, or
// ahead of them.
func (c *amqpCodec) nack(ahead bool) ([]byte, bool) {
	ct := c.content
	if ct == nil || ct.method.id != amqpPublish {
		return nil, false
	}
	ch := c.s.channel(c.channel)
	if !ch.confirms {
		return nil, false
	}
	ch.published++
	if ahead {
		ch.rejected = append(ch.rejected, ch.published)
	} else {
		ch.refused = append(ch.refused, ch.published)
	}
	method := amqpArgs(amqpPublish, uint16(0), "", "crashcourse.nowhere."+rand.Text(), byte(0))
	return append(amqpFrame(amqpFrameMethod, c.channel, method), ct.head[ct.method.size:]...), true
}

// twin copies a publish, and gives the copy to deliver when it is complete.
func (c *amqpCodec) twin(deliver func(Publishing)) bool {
	ct := c.content
	if ct == nil || ct.method.id != amqpPublish {
		return false
	}
	props, err := parseProperties(ct.props[12:])
	if err != nil {
		return false
	}
	t := &amqpTwin{deliver: deliver, p: Publishing{
		Exchange: ct.method.exchange, RoutingKey: ct.method.routingKey, Mandatory: ct.method.mandatory, Message: props,
	}}
	// What has arrived of the body is in frames, of which the last may be cut.
	for b := ct.head[ct.bodyAt:]; len(b) > 7; {
		r := &amqpReader{b: b[3:]}
		size := int(min(r.uint(4), uint64(len(b)-7)))
		t.add(b[7 : 7+size])
		b = b[min(len(b), 7+size+1):]
	}
	if ct.finished {
		t.done()
	} else {
		ct.twin = t
	}
	return true
}

// amqpTwin is a copy of a publish that is still arriving.
type amqpTwin struct {
	p       Publishing
	size    int
	deliver func(Publishing)
}

func (t *amqpTwin) add(body []byte) {
	if t.size += len(body); t.size > maxTwin {
		t.p.Message.Body = nil
		return
	}
	t.p.Message.Body = append(t.p.Message.Body, body...)
}

func (t *amqpTwin) done() {
	if t.size <= maxTwin {
		t.deliver(t.p)
	}
}
