package wire

import (
	"fmt"
	"math"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Publishing is a basic.publish that Duplicate copied, complete with its body.
type Publishing struct {
	Exchange   string
	RoutingKey string
	Mandatory  bool
	Message    amqp.Publishing
}

// Bits of a content header's property flags.
const (
	propContentType     = 1 << 15
	propContentEncoding = 1 << 14
	propHeaders         = 1 << 13
	propDeliveryMode    = 1 << 12
	propPriority        = 1 << 11
	propCorrelationID   = 1 << 10
	propReplyTo         = 1 << 9
	propExpiration      = 1 << 8
	propMessageID       = 1 << 7
	propTimestamp       = 1 << 6
	propType            = 1 << 5
	propUserID          = 1 << 4
	propAppID           = 1 << 3
)

// messageID reads that one property. b begins with the property flags.
func messageID(b []byte) string {
	r := &amqpReader{b: b}
	flags := r.short()
	if flags&propMessageID == 0 {
		return ""
	}
	for _, f := range []uint16{propContentType, propContentEncoding} {
		if flags&f != 0 {
			r.take(int(r.octet()))
		}
	}
	if flags&propHeaders != 0 {
		r.take(int(r.uint(4)))
	}
	for _, f := range []uint16{propDeliveryMode, propPriority} {
		if flags&f != 0 {
			r.octet()
		}
	}
	for _, f := range []uint16{propCorrelationID, propReplyTo, propExpiration} {
		if flags&f != 0 {
			r.take(int(r.octet()))
		}
	}
	return clip(r.str(), 255)
}

// parseProperties reads a property list, which begins with its flags.
func parseProperties(b []byte) (amqp.Publishing, error) {
	var p amqp.Publishing
	r := &amqpReader{b: b}
	flags := r.short()
	if flags&1 != 0 {
		return p, fmt.Errorf("wire: content header with more than one word of property flags")
	}
	str := func(flag uint16, to *string) {
		if flags&flag != 0 {
			*to = r.str()
		}
	}
	str(propContentType, &p.ContentType)
	str(propContentEncoding, &p.ContentEncoding)
	if flags&propHeaders != 0 {
		p.Headers = r.table(0)
	}
	if flags&propDeliveryMode != 0 {
		p.DeliveryMode = r.octet()
	}
	if flags&propPriority != 0 {
		p.Priority = r.octet()
	}
	str(propCorrelationID, &p.CorrelationId)
	str(propReplyTo, &p.ReplyTo)
	str(propExpiration, &p.Expiration)
	str(propMessageID, &p.MessageId)
	if flags&propTimestamp != 0 {
		p.Timestamp = time.Unix(int64(r.uint(8)), 0)
	}
	str(propType, &p.Type)
	str(propUserID, &p.UserId)
	str(propAppID, &p.AppId)
	if r.bad {
		return p, fmt.Errorf("wire: content header ends before its properties do")
	}
	return p, nil
}

// maxNesting bounds tables within tables.
const maxNesting = 32

func (r *amqpReader) table(level int) amqp.Table {
	t := amqp.Table{}
	in := &amqpReader{b: r.take(int(r.uint(4)))}
	for len(in.b) > 0 && !in.bad {
		key := in.str()
		t[key] = in.field(level)
	}
	r.bad = r.bad || in.bad
	return t
}

// field reads one value as RabbitMQ encodes it.
func (r *amqpReader) field(level int) any {
	if level > maxNesting {
		r.bad = true
		return nil
	}
	switch kind := r.octet(); kind {
	case 't':
		return r.octet() != 0
	case 'b':
		return int8(r.octet())
	case 'B':
		return r.octet()
	case 's':
		return int16(r.short())
	case 'u':
		return r.short()
	case 'I':
		return int32(r.uint(4))
	case 'i':
		return uint32(r.uint(4))
	case 'l':
		return int64(r.uint(8))
	case 'f':
		return math.Float32frombits(uint32(r.uint(4)))
	case 'd':
		return math.Float64frombits(r.uint(8))
	case 'D':
		return amqp.Decimal{Scale: r.octet(), Value: int32(r.uint(4))}
	case 'S':
		return string(r.take(int(r.uint(4))))
	case 'x':
		return append([]byte(nil), r.take(int(r.uint(4)))...)
	case 'T':
		return time.Unix(int64(r.uint(8)), 0)
	case 'F':
		return r.table(level + 1)
	case 'A':
		in := &amqpReader{b: r.take(int(r.uint(4)))}
		list := []any{}
		for len(in.b) > 0 && !in.bad {
			list = append(list, in.field(level+1))
		}
		r.bad = r.bad || in.bad
		return list
	case 'V':
		return nil
	}
	r.bad = true
	return nil
}
