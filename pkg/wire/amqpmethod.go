package wire

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"
)

// amqpID is a method's class and number.
type amqpID uint32

func methodID(class, method uint16) amqpID { return amqpID(class)<<16 | amqpID(method) }

// NoAck ends the Detail of a basic.consume whose deliveries need no acknowledgement.
const NoAck = " (no ack)"

const (
	amqpTuneOK      = amqpID(10<<16 | 31)
	amqpOpen        = amqpID(10<<16 | 40)
	amqpOpenOK      = amqpID(10<<16 | 41)
	amqpClose       = amqpID(10<<16 | 50)
	amqpCloseOK     = amqpID(10<<16 | 51)
	amqpBlocked     = amqpID(10<<16 | 60)
	amqpChannelOpen = amqpID(20<<16 | 10)
	amqpFlow        = amqpID(20<<16 | 20)
	amqpFlowOK      = amqpID(20<<16 | 21)
	amqpChanClose   = amqpID(20<<16 | 40)
	amqpExDeclare   = amqpID(40<<16 | 10)
	amqpExDelete    = amqpID(40<<16 | 20)
	amqpExBind      = amqpID(40<<16 | 30)
	amqpExUnbind    = amqpID(40<<16 | 40)
	amqpQDeclare    = amqpID(50<<16 | 10)
	amqpQDeclareOK  = amqpID(50<<16 | 11)
	amqpQBind       = amqpID(50<<16 | 20)
	amqpQPurge      = amqpID(50<<16 | 30)
	amqpQDelete     = amqpID(50<<16 | 40)
	amqpQUnbind     = amqpID(50<<16 | 50)
	amqpQos         = amqpID(60<<16 | 10)
	amqpConsume     = amqpID(60<<16 | 20)
	amqpConsumeOK   = amqpID(60<<16 | 21)
	amqpCancel      = amqpID(60<<16 | 30)
	amqpPublish     = amqpID(60<<16 | 40)
	amqpReturn      = amqpID(60<<16 | 50)
	amqpDeliver     = amqpID(60<<16 | 60)
	amqpGet         = amqpID(60<<16 | 70)
	amqpGetOK       = amqpID(60<<16 | 71)
	amqpAck         = amqpID(60<<16 | 80)
	amqpReject      = amqpID(60<<16 | 90)
	amqpNack        = amqpID(60<<16 | 120)
	amqpSelect      = amqpID(85<<16 | 10)
	amqpTxCommit    = amqpID(90<<16 | 20)
	amqpTxCommitOK  = amqpID(90<<16 | 21)
	amqpTxRollback  = amqpID(90<<16 | 30)
	amqpTxRollOK    = amqpID(90<<16 | 31)
)

// amqpNames are the methods of AMQP 0-9-1 and of RabbitMQ's extensions to it.
var amqpNames = map[amqpID]string{
	methodID(10, 10): "connection.start", methodID(10, 11): "connection.start-ok",
	methodID(10, 20): "connection.secure", methodID(10, 21): "connection.secure-ok",
	methodID(10, 30): "connection.tune", amqpTuneOK: "connection.tune-ok",
	amqpOpen: "connection.open", amqpOpenOK: "connection.open-ok",
	amqpClose: "connection.close", amqpCloseOK: "connection.close-ok",
	amqpBlocked: "connection.blocked", methodID(10, 61): "connection.unblocked",
	methodID(10, 70): "connection.update-secret", methodID(10, 71): "connection.update-secret-ok",
	amqpChannelOpen: "channel.open", methodID(20, 11): "channel.open-ok",
	amqpFlow: "channel.flow", amqpFlowOK: "channel.flow-ok",
	amqpChanClose: "channel.close", methodID(20, 41): "channel.close-ok",
	methodID(30, 10): "access.request", methodID(30, 11): "access.request-ok",
	amqpExDeclare: "exchange.declare", methodID(40, 11): "exchange.declare-ok",
	amqpExDelete: "exchange.delete", methodID(40, 21): "exchange.delete-ok",
	amqpExBind: "exchange.bind", methodID(40, 31): "exchange.bind-ok",
	amqpExUnbind: "exchange.unbind", methodID(40, 51): "exchange.unbind-ok",
	amqpQDeclare: "queue.declare", amqpQDeclareOK: "queue.declare-ok",
	amqpQBind: "queue.bind", methodID(50, 21): "queue.bind-ok",
	amqpQPurge: "queue.purge", methodID(50, 31): "queue.purge-ok",
	amqpQDelete: "queue.delete", methodID(50, 41): "queue.delete-ok",
	amqpQUnbind: "queue.unbind", methodID(50, 51): "queue.unbind-ok",
	amqpQos: "basic.qos", methodID(60, 11): "basic.qos-ok",
	amqpConsume: "basic.consume", amqpConsumeOK: "basic.consume-ok",
	amqpCancel: "basic.cancel", methodID(60, 31): "basic.cancel-ok",
	amqpPublish: "basic.publish", amqpReturn: "basic.return", amqpDeliver: "basic.deliver",
	amqpGet: "basic.get", amqpGetOK: "basic.get-ok", methodID(60, 72): "basic.get-empty",
	amqpAck: "basic.ack", amqpReject: "basic.reject", amqpNack: "basic.nack",
	methodID(60, 100): "basic.recover-async", methodID(60, 110): "basic.recover",
	methodID(60, 111): "basic.recover-ok",
	amqpSelect:        "confirm.select", methodID(85, 11): "confirm.select-ok",
	methodID(90, 10): "tx.select", methodID(90, 11): "tx.select-ok",
	amqpTxCommit: "tx.commit", amqpTxCommitOK: "tx.commit-ok",
	amqpTxRollback: "tx.rollback", amqpTxRollOK: "tx.rollback-ok",
}

// hasContent tells whether a header and a body follow the method.
func (id amqpID) hasContent() bool {
	return id == amqpPublish || id == amqpReturn || id == amqpDeliver || id == amqpGetOK
}

func (id amqpID) String() string {
	if name := amqpNames[id]; name != "" {
		return name
	}
	return fmt.Sprintf("method %d.%d", id>>16, id&0xffff)
}

// amqpReader reads a method's arguments. What is missing reads as zero.
type amqpReader struct {
	b   []byte
	bad bool // something was missing
}

func (r *amqpReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *amqpReader) uint(bytes int) uint64 {
	var v uint64
	for _, c := range r.take(bytes) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *amqpReader) short() uint16 { return uint16(r.uint(2)) }
func (r *amqpReader) octet() byte   { return byte(r.uint(1)) }
func (r *amqpReader) str() string   { return string(r.take(int(r.octet()))) }

// amqpMethod is what is read of a method's arguments.
type amqpMethod struct {
	id         amqpID
	exchange   string
	routingKey string
	mandatory  bool
	tag        uint64
	multiple   bool
	requeue    bool
	heartbeat  time.Duration
	size       int // bytes of the method's frame
}

// parseMethod reads a method and fills m's type, name, effect and detail.
func parseMethod(payload []byte, dir Direction, m *Message, max int) amqpMethod {
	r := &amqpReader{b: payload}
	a := amqpMethod{id: methodID(r.short(), r.short()), size: len(payload) + 8}
	m.Type = a.id.String()
	m.Name = m.Type
	m.Step = a.id>>16 != 10
	object := ""
	switch a.id {
	case amqpTuneOK:
		r.take(6)
		a.heartbeat = time.Duration(r.short()) * time.Second
	case amqpOpen:
		object = r.str()
	case amqpClose, amqpChanClose:
		m.Detail = clip(fmt.Sprintf("%d %s", r.short(), r.str()), max)
	case amqpBlocked:
		m.Detail = clip(r.str(), max)
	case amqpExDeclare:
		r.short()
		object = r.str()
		m.Detail = clip(r.str(), max)
	case amqpExDelete:
		r.short()
		object = r.str()
	case amqpQDeclareOK:
		object = r.str()
		m.Detail = fmt.Sprintf("%d messages, %d consumers", r.uint(4), r.uint(4))
	case amqpQDeclare:
		r.short()
		if object = r.str(); object == "" {
			object = "(named by the broker)"
		}
	case amqpQPurge, amqpQDelete, amqpGet:
		r.short()
		object = r.str()
	case amqpQBind, amqpQUnbind:
		r.short()
		object = r.str()
		m.Detail = clip("from "+r.str()+" by "+r.str(), max)
	case amqpExBind, amqpExUnbind:
		r.short()
		object = r.str()
		m.Detail = clip("from "+r.str()+" by "+r.str(), max)
	case amqpConsume:
		r.short()
		object = r.str()
		m.Detail = clip(r.str(), max)
		if r.octet()&2 != 0 {
			m.Detail += NoAck
		}
	case amqpCancel, amqpConsumeOK:
		m.Detail = clip(r.str(), max)
	case amqpQos:
		r.take(4)
		object = strconv.Itoa(int(r.short()))
	case amqpPublish:
		r.short()
		a.exchange, a.routingKey = r.str(), r.str()
		a.mandatory = r.octet()&1 != 0
		object = a.target()
		m.Effect = Publish
	case amqpReturn:
		m.Detail = clip(fmt.Sprintf("%d %s", r.short(), r.str()), max)
		a.exchange, a.routingKey = r.str(), r.str()
		object = a.target()
		m.Effect = Return
	case amqpDeliver, amqpGetOK:
		if a.id == amqpDeliver {
			r.str()
		}
		a.tag = r.uint(8)
		r.octet()
		a.exchange, a.routingKey = r.str(), r.str()
		object = a.target() + " #" + strconv.FormatUint(a.tag, 10)
		m.DeliveryTag = a.tag
		m.Effect = Deliver
	case amqpAck, amqpNack, amqpReject:
		a.tag = r.uint(8)
		bits := r.octet()
		if a.id == amqpReject {
			a.requeue = bits&1 != 0
		} else {
			a.multiple, a.requeue = bits&1 != 0, bits&2 != 0
		}
		object = tagName(a.tag, a.multiple)
		m.DeliveryTag, m.Multiple = a.tag, a.multiple
		m.Effect = Ack
		if dir == ToClient {
			m.Effect = Confirm
		}
		if dir == ToServer && a.id != amqpAck {
			m.Detail = "discarded"
			if a.requeue {
				m.Detail = "requeued"
			}
		}
	case amqpTxCommit:
		m.Effect = Commit
	case amqpTxRollback:
		m.Effect = Rollback
	case amqpTxCommitOK, amqpTxRollOK:
		m.Effect = Done
	}
	if object != "" {
		m.Name = clip(m.Type+" "+object, maxNameLen)
	}
	return a
}

func (a amqpMethod) target() string {
	if a.routingKey != "" {
		return a.routingKey
	}
	return a.exchange
}

func tagName(tag uint64, multiple bool) string {
	if multiple {
		return "≤" + strconv.FormatUint(tag, 10)
	}
	return strconv.FormatUint(tag, 10)
}

// amqpFrame builds a frame.
func amqpFrame(kind byte, channel uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind}, channel)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), amqpFrameEnd)
}

// amqpArgs builds a method's payload. Arguments are byte, uint16, uint64 or
// string.
func amqpArgs(id amqpID, args ...any) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(id))
	for _, arg := range args {
		switch v := arg.(type) {
		case byte:
			b = append(b, v)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		case string:
			if len(v) > 255 {
				v = v[:255]
			}
			b = append(append(b, byte(len(v))), v...)
		}
	}
	return b
}
