package wire

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"strings"
	"testing"
	"time"
)

// Sections are those of the AMQP 0-9-1 specification; "RabbitMQ" stands before
// what is that broker's extension, or its habit from some version on.

// frame builds a frame: section 2.3.5.
func frame(kind byte, channel uint16, payload string) string {
	return string(kind) + be(channel) + be(uint32(len(payload))) + payload + "\xce"
}

// method builds a method frame of a class, a number and its arguments.
func method(channel, class, number uint16, args ...string) string {
	return frame(1, channel, be(class, number)+strings.Join(args, ""))
}

// content builds a header with these properties, and a body in frames of at
// most max bytes, eight of which are the frame's own.
func content(channel uint16, flags uint16, properties, body string, max int) string {
	out := frame(2, channel, be[uint16](60, 0)+be(uint64(len(body)))+be(flags)+properties)
	for part := ""; body != ""; {
		n := min(len(body), max-8)
		part, body = body[:n], body[n:]
		out += frame(3, channel, part)
	}
	return out
}

// short and long are strings with their length before them.
func short(s string) string { return string([]byte{byte(len(s))}) + s }
func long(s string) string  { return be(uint32(len(s))) + s }

const (
	amqp091   = "AMQP\x00\x00\x09\x01"
	noTable   = "\x00\x00\x00\x00"
	heartbeat = "\x08\x00\x00\x00\x00\x00\x00\xce"
)

// amqpOpened is the handshake up to an open channel: sections 1.4 and 1.5.
var amqpOpened = []line{
	up(amqp091, "protocol header"),
	down(method(0, 10, 10, "\x00\x09", long(short("version")+"S"+long("4.0.5")), long("AMQPLAIN PLAIN"), long("en_US")), "connection.start"),
	up(method(0, 10, 11, noTable, short("PLAIN"), long("\x00alice\x00secret"), short("en_US")), "connection.start-ok"),
	down("\x01\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x1e\x07\xff\x00\x02\x00\x00\x00\x3c\xce", "connection.tune"),
	up("\x01\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x1f\x07\xff\x00\x02\x00\x00\x00\x3c\xce", "connection.tune-ok"),
	up(method(0, 10, 40, short("/"), "\x00\x00"), "connection.open /"),
	down(method(0, 10, 41, "\x00"), "connection.open-ok"),
	up(method(1, 20, 10, "\x00"), "*channel.open"),
	down(method(1, 20, 11, noTable), "*channel.open-ok"),
}

func opened(lines ...line) []line {
	return append(amqpOpened[:len(amqpOpened):len(amqpOpened)], lines...)
}

var amqpVectors = []vector{
	{"2.2.4 Protocol header: a broker refuses the version, and says what it speaks", []line{
		up(amqp091, "protocol header"),
		down("AMQP\x00\x00\x09\x01", "protocol header"),
	}},
	{"RabbitMQ 4.0 says that it speaks AMQP 1.0 over SASL", []line{
		up(amqp091, "protocol header"),
		down("AMQP\x03\x01\x00\x00", "protocol header"),
	}},
	{"1.4.2 connection.secure: a challenge more", []line{
		up(amqp091, "protocol header"),
		down(method(0, 10, 20, long("challenge")), "connection.secure"),
		up(method(0, 10, 21, long("answer")), "connection.secure-ok"),
	}},
	{"RabbitMQ 4.1: a token of 8 KB before the frame size is agreed, frames of 8192 after", []line{
		up(amqp091, "protocol header"),
		down(method(0, 10, 10, "\x00\x09", noTable, long("PLAIN"), long("en_US")), "connection.start"),
		up(method(0, 10, 11, noTable, short("PLAIN"), long("\x00\x00"+strings.Repeat("j", 8100)), short("en_US")), "connection.start-ok"),
		down(method(0, 10, 30, be(uint16(2047)), be(uint32(131072)), be(uint16(60))), "connection.tune"),
		up(method(0, 10, 31, be(uint16(2047)), be(uint32(8192)), be(uint16(0))), "connection.tune-ok"),
		up(method(0, 10, 40, short("/"), "\x00\x00"), "connection.open /"),
		down(method(0, 10, 41, "\x00"), "connection.open-ok"),
		up(method(2047, 20, 10, "\x00"), "*channel.open"),
		down(method(2047, 20, 11, noTable), "*channel.open-ok"),
		up(method(2047, 60, 40, "\x00\x00", short("events"), short("order.placed"), "\x01")+
			content(2047, 0x1000, "\x02", strings.Repeat("b", 30_000), 8192), "*basic.publish order.placed"),
	}},
	{"1.4.2 connection.tune: no limits, no heartbeat", []line{
		down(method(0, 10, 30, be(uint16(0)), be(uint32(0)), be(uint16(0))), "connection.tune"),
		up(method(0, 10, 31, be(uint16(0)), be(uint32(0)), be(uint16(0))), "connection.tune-ok"),
	}},
	{"2.3.7 Closing: with a reason, by either side", opened(
		down(method(1, 20, 40, be(uint16(406)), short("PRECONDITION_FAILED - inequivalent arg 'durable'"), be[uint16](50, 10)), "*channel.close"),
		up(method(1, 20, 41), "*channel.close-ok"),
		up(method(0, 10, 50, be(uint16(200)), short("bye"), be[uint16](0, 0)), "connection.close"),
		down(method(0, 10, 51), "connection.close-ok"),
	)},
	{"RabbitMQ 4: a deprecated feature is denied, here a transient queue that is not exclusive", opened(
		up(method(1, 50, 10, "\x00\x00", short("q"), "\x00", noTable), "*queue.declare q"),
		down(method(0, 10, 50, be(uint16(541)), short("INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated."), be[uint16](50, 10)), "connection.close"),
		up(method(0, 10, 51), "connection.close-ok"),
	)},
	{"RabbitMQ connection.blocked and unblocked, in the middle of a delivery", opened(
		down(method(1, 60, 60, short("c"), be(uint64(1)), "\x00", short(""), short("q"))+
			method(0, 10, 60, short("low on memory"))+content(1, 0, "", "hello", 4096)+method(0, 10, 61),
			"connection.blocked, *basic.deliver q #1, connection.unblocked"),
	)},
	{"RabbitMQ connection.update-secret", opened(
		up(method(0, 10, 70, long("new token"), short("it expires")), "connection.update-secret"),
		down(method(0, 10, 71), "connection.update-secret-ok"),
	)},
	{"1.5 channel.flow", opened(
		down(method(1, 20, 20, "\x00"), "*channel.flow"),
		up(method(1, 20, 21, "\x00"), "*channel.flow-ok"),
	)},
	{"1.6 exchange, and RabbitMQ's binding of one to another", opened(
		up(method(1, 40, 10, "\x00\x00", short("events"), short("topic"), "\x02", noTable), "*exchange.declare events"),
		down(method(1, 40, 11), "*exchange.declare-ok"),
		up(method(1, 40, 30, "\x00\x00", short("audit"), short("events"), short("#"), "\x00", noTable), "*exchange.bind audit"),
		down(method(1, 40, 31), "*exchange.bind-ok"),
		up(method(1, 40, 40, "\x00\x00", short("audit"), short("events"), short("#"), "\x00", noTable), "*exchange.unbind audit"),
		down(method(1, 40, 51), "*exchange.unbind-ok"),
		up(method(1, 40, 20, "\x00\x00", short("events"), "\x00"), "*exchange.delete events"),
		down(method(1, 40, 21), "*exchange.delete-ok"),
	)},
	{"1.7 queue, of a type that RabbitMQ takes from the arguments", opened(
		up(method(1, 50, 10, "\x00\x00", short("q"), "\x02", long(short("x-queue-type")+"S"+long("quorum")+short("x-delivery-limit")+"I"+be(uint32(20)))), "*queue.declare q"),
		down(method(1, 50, 11, short("q"), be[uint32](3, 1)), "*queue.declare-ok q"),
		up(method(1, 50, 10, "\x00\x00", short(""), "\x04", noTable), "*queue.declare (named by the broker)"),
		down(method(1, 50, 11, short("amq.gen-1"), be[uint32](0, 0)), "*queue.declare-ok amq.gen-1"),
		up(method(1, 50, 20, "\x00\x00", short("q"), short("events"), short("order.*"), "\x00", noTable), "*queue.bind q"),
		down(method(1, 50, 21), "*queue.bind-ok"),
		up(method(1, 50, 50, "\x00\x00", short("q"), short("events"), short("order.*"), noTable), "*queue.unbind q"),
		down(method(1, 50, 51), "*queue.unbind-ok"),
		up(method(1, 50, 30, "\x00\x00", short("q"), "\x00"), "*queue.purge q"),
		down(method(1, 50, 31, be(uint32(3))), "*queue.purge-ok"),
		up(method(1, 50, 40, "\x00\x00", short("q"), "\x00"), "*queue.delete q"),
		down(method(1, 50, 41, be(uint32(0))), "*queue.delete-ok"),
	)},
	{"1.8 basic: publish and RabbitMQ's confirms, one refused", opened(
		up(method(1, 85, 10, "\x00"), "*confirm.select"),
		down(method(1, 85, 11), "*confirm.select-ok"),
		up(method(1, 60, 40, "\x00\x00", short(""), short("q"), "\x01")+content(1, 0, "", "", 4096), "*basic.publish q"),
		down(method(1, 60, 80, be(uint64(1)), "\x00"), "*basic.ack 1"),
		down(method(1, 60, 120, be(uint64(3)), "\x01"), "*basic.nack ≤3"),
		down(method(1, 60, 50, be(uint16(312)), short("NO_ROUTE"), short(""), short("q"))+content(1, 0, "", "x", 4096), "*basic.return q"),
	)},
	{"1.8 basic: consume, settle, RabbitMQ's nack, and its consumer cancel notification", opened(
		up(method(1, 60, 10, be(uint32(0)), be(uint16(10)), "\x00"), "*basic.qos 10"),
		down(method(1, 60, 11), "*basic.qos-ok"),
		up(method(1, 60, 20, "\x00\x00", short("q"), short("c"), "\x00", noTable), "*basic.consume q"),
		down(method(1, 60, 21, short("c")), "*basic.consume-ok"),
		down(method(1, 60, 60, short("c"), be[uint64](1), "\x01", short("events"), short("order.placed"))+
			content(1, 0x2000, long(short("x-delivery-count")+"l"+be(uint64(1))), "{}", 131072), "*basic.deliver order.placed #1"),
		up(method(1, 60, 80, be(uint64(1)), "\x01")+method(1, 60, 90, be(uint64(2)), "\x01")+method(1, 60, 120, be(uint64(9)), "\x03"),
			"*basic.ack ≤1, *basic.reject 2, *basic.nack ≤9"),
		down(method(1, 60, 30, short("c"), "\x01"), "*basic.cancel"),
		up(method(1, 60, 110, "\x01"), "*basic.recover"),
		down(method(1, 60, 111), "*basic.recover-ok"),
		up(method(1, 60, 30, short("d"), "\x00"), "*basic.cancel"),
		down(method(1, 60, 31, short("d")), "*basic.cancel-ok"),
	)},
	{"1.8 basic: get", opened(
		up(method(1, 60, 70, "\x00\x00", short("q"), "\x00"), "*basic.get q"),
		down(method(1, 60, 71, be(uint64(1<<63)), "\x00", short(""), short("q"), be(uint32(0)))+content(1, 0, "", "x", 4096), "*basic.get-ok q #9223372036854775808"),
		up(method(1, 60, 70, "\x00\x00", short("q"), "\x00"), "*basic.get q"),
		down(method(1, 60, 72, "\x00"), "*basic.get-empty"),
	)},
	{"1.9 tx", opened(
		up(method(1, 90, 10), "*tx.select"), down(method(1, 90, 11), "*tx.select-ok"),
		up(method(1, 90, 20), "*tx.commit"), down(method(1, 90, 21), "*tx.commit-ok"),
		up(method(1, 90, 30), "*tx.rollback"), down(method(1, 90, 31), "*tx.rollback-ok"),
	)},
	{"4.2.6 Content: two channels at once, a heartbeat between their frames", opened(
		up(method(2, 20, 10, "\x00"), "*channel.open"),
		up(method(1, 60, 40, "\x00\x00", short("a"), short(""), "\x00")+frame(2, 1, be[uint16](60, 0)+be(uint64(2))+be(uint16(0)))+frame(3, 1, "a")+
			heartbeat+method(2, 60, 40, "\x00\x00", short("b"), short(""), "\x00")+content(2, 0, "", "b", 4096)+frame(3, 1, "a"),
			"heartbeat, *basic.publish b, *basic.publish a"),
	)},
	{"4.2.7 Heartbeat", opened(up(heartbeat, "heartbeat"), down(heartbeat, "heartbeat"))},
	{"A method that is not known", opened(down(method(1, 60, 200, "later"), "*method 60.200"))},
}

func TestAMQPVectors(t *testing.T) {
	speak(t, amqpVectors, func() map[Direction]codec {
		s := &amqpSession{channels: make(map[uint16]*amqpChannel)}
		return map[Direction]codec{ToServer: newAMQPCodec(s, ToServer, defaultMaxDetail), ToClient: newAMQPCodec(s, ToClient, defaultMaxDetail)}
	}, sameByChannel)
}

// sameByChannel compares frames. A message is held back until it is whole, so
// those of one channel may pass those of another.
func sameByChannel(a, b []byte) bool {
	return len(a) == len(b) && maps.EqualFunc(byChannel(a), byChannel(b), bytes.Equal)
}

// TestOtherAMQP opens with what is not AMQP 0-9-1. The answer is what section
// 2.2.4 asks for, whatever the broker behind would have said.
func TestOtherAMQP(t *testing.T) {
	l := newLane(t, newProxy(t, Config{}))
	for _, c := range []struct{ name, send, want string }{
		{"AMQP 1.0", "AMQP\x00\x01\x00\x00", amqp091},
		{"AMQP 1.0 over SASL", "AMQP\x03\x01\x00\x00", amqp091},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", amqp091},
		{"TLS", "\x16\x03\x01\x00\xf1\x01\x00\x00\xed", string(tlsAlert)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d net.Dialer
			conn, err := d.DialContext(within(t, 5*time.Second), "tcp", l.AMQP())
			if err != nil {
				t.Fatal(err)
			}
			defer context.AfterFunc(within(t, 5*time.Second), func() { _ = conn.Close() })()
			defer conn.Close() //nolint:errcheck // a test
			if _, err := io.WriteString(conn, c.send); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); err != nil || string(got) != c.want {
				t.Errorf("answered %q, %v; want %q", got, err, c.want)
			}
		})
	}
}
