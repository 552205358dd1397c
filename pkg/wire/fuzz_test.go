package wire

import (
	"bytes"
	"encoding/binary"
	"math"
	"runtime"
	"testing"
	"unicode/utf8"
)

// feed runs input through a codec as a pump does, in reads of at most chunk
// bytes, passing everything. It returns what went out, how much of the input was
// dealt with, and the messages.
func feed(t *testing.T, c codec, input []byte, chunk int) (out []byte, taken int, messages []Message, err error) {
	var buf []byte
	for {
		for {
			var m Message
			if len(buf) == 0 {
				break
			}
			pc, err := c.next(buf, &m)
			if err != nil {
				return out, taken, messages, err
			}
			if pc.wait {
				break
			}
			if pc.n < 0 || pc.n > len(buf) {
				t.Fatalf("a piece of %d bytes in a buffer of %d", pc.n, len(buf))
			}
			if pc.msg {
				if m.Type == "" || m.Name == "" || !utf8.ValidString(m.Name) || !utf8.ValidString(m.Detail) || len(m.Detail) > defaultMaxDetail {
					t.Fatalf("bad message %q %q %q", m.Type, m.Name, m.Detail)
				}
				messages = append(messages, m)
			}
			if !pc.drop {
				out = append(out, pc.data...)
			}
			if pc.msg {
				c.passed()
			}
			buf, taken = buf[pc.n:], taken+pc.n
		}
		if len(buf) > maxBuffer {
			t.Fatalf("the codec still waits with %d bytes in hand", len(buf))
		}
		if len(input) == 0 {
			return out, taken, messages, nil
		}
		n := min(chunk, len(input))
		buf, input = append(buf[:len(buf):len(buf)], input[:n]...), input[n:]
	}
}

func pgPacket(kind byte, parts ...string) string {
	var body []byte
	for _, p := range parts {
		body = append(body, p...)
	}
	return string(pgMessage(kind, body...))
}

const pgHello = "\x00\x00\x00\x22\x00\x03\x00\x00user\x00alice\x00database\x00shop\x00\x00"

func FuzzPostgres(f *testing.F) {
	hello := []byte(pgHello)
	binary.BigEndian.PutUint32(hello, uint32(len(hello)))
	f.Add(string(hello)+pgPacket('Q', "BEGIN; INSERT INTO t VALUES (1); COMMIT\x00"), true, 7)
	f.Add(string(hello)+pgPacket('P', "s\x00", "SELECT $1\x00", "\x00\x00")+pgPacket('B', "\x00s\x00", "\x00\x00\x00\x00\x00\x00")+
		pgPacket('E', "\x00\x00\x00\x00\x00")+pgPacket('S')+pgPacket('C', "Ss\x00")+pgPacket('X'), true, 1)
	f.Add(string(hello)+pgPacket('Q', "COPY t FROM STDIN\x00")+pgPacket('d', "1\ta\n")+pgPacket('d', "2\tb\n")+pgPacket('c'), true, 100)
	f.Add(string(hello)+"Q\xff\xff\xff\xff", true, 3)
	f.Add(string(hello)+"Q\x7f\xff\xff\xff SELECT", true, 3)
	f.Add(pgPacket('R', "\x00\x00\x00\x00")+pgPacket('S', "a\x00b\x00")+pgPacket('S', "c\x00d\x00")+pgPacket('Z', "I"), false, 4)
	f.Add(pgPacket('E', "SERROR\x00C40001\x00Mno\x00\x00")+pgPacket('A', "\x00\x00\x00\x01ch\x00hi\x00")+pgPacket('s')+pgPacket('I'), false, 9)
	f.Add(pgPacket('W', "\x00\x00\x00")+pgPacket('d', "k\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")+pgPacket('d', "w"), false, 50)
	f.Fuzz(func(t *testing.T, data string, up bool, chunk int) {
		if chunk < 1 {
			chunk = 1
		}
		s := newPGSession(&sqlNames{detail: defaultMaxDetail}, defaultMaxDetail)
		var c codec = &pgDown{s: s}
		if up {
			c = &pgUp{s: s}
		}
		out, taken, _, _ := feed(t, c, []byte(data), chunk)
		if string(out) != data[:taken] {
			t.Fatalf("%q came out as %q", data[:taken], out)
		}
	})
}

// amqpContentFrames builds a method with content, its body in frames of at most
// so many bytes.
func amqpContentFrames(channel uint16, method []byte, body string, frame int) (out []byte) {
	out = amqpFrame(amqpFrameMethod, channel, method)
	header := binary.BigEndian.AppendUint64([]byte{0, 60, 0, 0}, uint64(len(body)))
	header = append(header, 0x00, 0x80, 2, 'i', 'd') // a message ID
	out = append(out, amqpFrame(amqpFrameHeader, channel, header)...)
	for len(body) > 0 {
		n := min(frame, len(body))
		out = append(out, amqpFrame(amqpFrameBody, channel, []byte(body[:n]))...)
		body = body[n:]
	}
	return out
}

// byChannel splits frames by channel; a frame that is not complete is left out.
func byChannel(b []byte) map[uint16][]byte {
	out := make(map[uint16][]byte)
	if bytes.HasPrefix(b, []byte("AMQP")) && len(b) >= 8 {
		b = b[8:]
	}
	for len(b) >= 8 {
		n := int64(binary.BigEndian.Uint32(b[3:])) + 8
		if n > int64(len(b)) {
			break
		}
		ch := binary.BigEndian.Uint16(b[1:])
		out[ch] = append(out[ch], b[:n]...)
		b = b[n:]
	}
	return out
}

func FuzzAMQP(f *testing.F) {
	publish := amqpArgs(amqpPublish, uint16(0), "events", "order.placed", byte(1))
	deliver := amqpArgs(amqpDeliver, "tag", uint64(7), byte(0), "events", "order.placed")
	f.Add(append([]byte("AMQP\x00\x00\x09\x01"), amqpContentFrames(1, publish, "hello, world", 5)...), true, 3)
	f.Add(append(amqpContentFrames(1, deliver, "one", 100), amqpContentFrames(2, deliver, "", 1)...), false, 1)
	a, b := amqpContentFrames(1, publish, "aaaa", 2), amqpContentFrames(2, publish, "bbbb", 2)
	f.Add(append(append(append([]byte{}, a[:len(a)-10]...), b...), a[len(a)-10:]...), true, 1000)
	f.Add(append(amqpFrame(amqpFrameMethod, 1, amqpArgs(amqpAck, uint64(3), byte(1))), amqpFrame(amqpFrameHeartbeat, 0, nil)...), false, 2)
	f.Add([]byte("\x01\x00\x01\xff\xff\xff\xff"), true, 7)
	f.Add([]byte("\x03\x00\x01\xff\xff\xff\xff"), true, 7)
	f.Add(amqpFrame(amqpFrameMethod, 0, amqpArgs(amqpClose, uint16(320), "gone", uint16(0), uint16(0))), false, 4)
	f.Fuzz(func(t *testing.T, data []byte, up bool, chunk int) {
		if chunk < 1 {
			chunk = 1
		}
		dir := ToClient
		if up {
			dir = ToServer
		}
		c := newAMQPCodec(&amqpSession{channels: make(map[uint16]*amqpChannel)}, dir, defaultMaxDetail)
		out, taken, _, _ := feed(t, c, data, chunk)
		in, got := byChannel(data[:taken]), byChannel(out)
		for ch, b := range got {
			if !bytes.HasPrefix(in[ch], b) {
				t.Fatalf("channel %d: %q came out as %q", ch, in[ch], b)
			}
		}
		if c.held < 0 {
			t.Fatalf("%d bytes held back", c.held)
		}
		if c.held == 0 && len(out) != taken {
			t.Fatalf("%d bytes in, %d out, none held back", taken, len(out))
		}
	})
}

func FuzzHTTP(f *testing.F) {
	const request = "POST /charges?a=b HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\n"
	f.Add(request+"Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n", true, 3)
	f.Add(request+"Transfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nA: b\r\n\r\n", true, 1)
	f.Add(request+"Expect: 100-continue\r\nContent-Length: 4\r\n\r\nab", true, 1000)
	f.Add(request+"Content-Length: 99999999999999999\r\n\r\nab", true, 7)
	f.Add(request+"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", true, 7)
	f.Add("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, 2)
	f.Add("HTTP/1.0 200\r\n\r\nto the end", false, 4)
	f.Add("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", false, 9)
	f.Fuzz(func(t *testing.T, data string, up bool, chunk int) {
		if chunk < 1 {
			chunk = 1
		}
		s := &httpSession{waiting: []httpRequest{{name: "HEAD /", noBody: true}, {name: "POST /", effect: Call}}}
		dir := ToClient
		if up {
			dir = ToServer
		}
		out, taken, _, _ := feed(t, newHTTPCodec(s, dir, defaultMaxDetail), []byte(data), chunk)
		if string(out) != data[:taken] {
			t.Fatalf("%q came out as %q", data[:taken], out)
		}
	})
}

func FuzzSQL(f *testing.F) {
	for _, c := range sqlCases {
		f.Add(c.sql)
	}
	f.Add("SELECT 'open")
	f.Add("$a$ /* /* */ E'\\")
	f.Add(`"" "".""."a"`)
	f.Fuzz(func(t *testing.T, sql string) {
		s := nameSQL(sql, 64)
		if s.name == "" || len(s.name) > maxNameLen || len(s.text) > 64 || !utf8.ValidString(s.name) || !utf8.ValidString(s.text) {
			t.Fatalf("%q is named %q, %q", sql, s.name, s.text)
		}
		for _, in := range []bool{false, true} {
			s.simple(in)
			s.extended(in)
		}
	})
}

func FuzzProperties(f *testing.F) {
	f.Add([]byte{0xff, 0xfc, 1, 'a', 1, 'b', 0, 0, 0, 5, 1, 'k', 'S', 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseProperties(b)
		if !utf8.ValidString(messageID(b)) {
			t.Fatal("a message ID that is no text")
		}
	})
}

// TestHostileLengths claims large sizes and sends little, on many channels.
func TestHostileLengths(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	publish := amqpArgs(amqpPublish, uint16(0), "events", "key", byte(0))
	header := binary.BigEndian.AppendUint64([]byte{0, 60, 0, 0}, math.MaxUint64)
	header = append(header, 0, 0)
	c := newAMQPCodec(&amqpSession{channels: make(map[uint16]*amqpChannel)}, ToServer, defaultMaxDetail)
	var held int
	for ch := range 5000 {
		in := amqpFrame(amqpFrameMethod, uint16(ch), publish)
		in = append(in, amqpFrame(amqpFrameHeader, uint16(ch), header)...)
		in = append(in, amqpFrame(amqpFrameBody, uint16(ch), make([]byte, 4000))...)
		if _, _, _, err := feed(t, c, in, len(in)); err != nil {
			break
		}
		held = max(held, c.held)
	}
	if held > 2*maxHeld {
		t.Errorf("%d bytes held back", held)
	}
	for _, in := range []string{"Q\x7f\xff\xff\xff", "\x7f\xff\xff\xff\x00\x03\x00\x00"} {
		u := &pgUp{s: newPGSession(&sqlNames{}, 10), begun: in[0] == 'Q'}
		_, _, _, _ = feed(t, u, []byte(in), 100)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 256<<20 {
		t.Errorf("%d MB were allocated", grown>>20)
	}
}

// TestLongMessages checks that what does not fit a buffer comes out unchanged.
func TestLongMessages(t *testing.T) {
	big := string(bytes.Repeat([]byte("0123456789"), 100_000))
	for _, chunk := range []int{1000, 16384, 300_000, 1 << 30} {
		s := newPGSession(&sqlNames{detail: 100}, 100)
		in := pgPacket('Q', "SELECT '"+big+"'\x00") + pgPacket('S')
		out, _, messages, err := feed(t, &pgUp{s: s, begun: true}, []byte(in), chunk)
		if err != nil || string(out) != in || len(messages) != 2 {
			t.Errorf("PostgreSQL in reads of %d: %d of %d bytes, %d messages, %v", chunk, len(out), len(in), len(messages), err)
		}
		for _, frame := range []int{100_000, 1 << 30} {
			c := newAMQPCodec(&amqpSession{channels: make(map[uint16]*amqpChannel)}, ToServer, 100)
			in := amqpContentFrames(1, amqpArgs(amqpPublish, uint16(0), "e", "k", byte(0)), big, frame)
			in = append(in, amqpFrame(amqpFrameHeartbeat, 0, nil)...)
			out, _, messages, err := feed(t, c, in, chunk)
			if err != nil || !bytes.Equal(out, in) || len(messages) != 2 || messages[0].MessageID != "id" {
				t.Errorf("AMQP frames of %d in reads of %d: %d of %d bytes, %d messages, %v", frame, chunk, len(out), len(in), len(messages), err)
			}
			if c.s.upInFrame || len(c.contents) != 0 || c.held != 0 {
				t.Errorf("AMQP codec is left in the middle of something")
			}
		}
	}
}
