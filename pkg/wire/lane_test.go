package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	amqp "github.com/rabbitmq/amqp091-go"
)

// countingServer counts what it is sent, says nothing, and closes when its
// client does.
func countingServer(t *testing.T) (addr string, received *atomic.Int64) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	received = new(atomic.Int64)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				n, _ := io.Copy(io.Discard, c)
				received.Add(n)
			}()
		}
	}()
	return ln.Addr().String(), received
}

// TestFreezeToTheByte floods both servers on many connections, freezes at some
// message, and compares what the servers got with what the trace says passed.
func TestFreezeToTheByte(t *testing.T) {
	hello := []byte(pgHello)
	binary.BigEndian.PutUint32(hello, uint32(len(hello)))
	publish := amqpContentFrames(1, amqpArgs(amqpPublish, uint16(0), "e", "k", byte(0)), "body", 3)
	for round := range 10 {
		pgAddr, pgGot := countingServer(t)
		amqpAddr, amqpGot := countingServer(t)
		stopAt := 100 + 37*round
		var lane *Lane
		count := 0
		decide := func(m *Message) Action {
			if m.Process == 1 && m.Step {
				if count++; count == stopAt {
					return Action{Kind: Freeze}
				}
				if count > stopAt {
					t.Error("asked about a message after the freeze")
				}
			}
			return Action{}
		}
		p, err := New(Config{Postgres: pgAddr, AMQP: amqpAddr, Decide: decide})
		if err != nil {
			t.Fatal(err)
		}
		lane = newLane(t, p)
		var wg sync.WaitGroup
		for i := range 6 {
			addr, first, then := lane.Postgres(), string(hello), pgPacket('Q', fmt.Sprintf("SELECT %d\x00", i))
			if i%2 == 0 {
				addr, first, then = lane.AMQP(), "AMQP\x00\x00\x09\x01", string(publish)
			}
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			wg.Go(func() {
				_, _ = io.WriteString(c, first)
				for !lane.Frozen() {
					if _, err := io.WriteString(c, strings.Repeat(then, 1+i)); err != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		closeLane(t, lane)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		want := map[Protocol]int64{}
		for _, m := range p.Trace().Messages {
			if m.Fault == "" && m.Dir == ToServer {
				want[m.Protocol] += m.Size
			}
		}
		for deadline := time.Now().Add(5 * time.Second); pgGot.Load() < want[PG] || amqpGot.Load() < want[AMQP]; {
			if time.Now().After(deadline) {
				break
			}
			runtime.Gosched()
		}
		if pgGot.Load() != want[PG] || amqpGot.Load() != want[AMQP] {
			t.Fatalf("round %d: the servers got %d and %d bytes, the trace says %d and %d", round, pgGot.Load(), amqpGot.Load(), want[PG], want[AMQP])
		}
	}
}

// TestNoGoroutineIsLeft uses a proxy in many ways and checks what is left.
func TestNoGoroutineIsLeft(t *testing.T) {
	table, queue := makeTable(t), makeQueue(t)
	once := func(kind ActionKind) {
		decide, _ := at(ToServer, "INSERT "+table, Action{Kind: kind, For: time.Millisecond})
		p, err := New(Config{Postgres: servers.pgAddr, AMQP: servers.amqpAddr, Decide: decide})
		if err != nil {
			t.Fatal(err)
		}
		l := newLane(t, p)
		newLane(t, p) // never used
		idle, err := net.Dial("tcp", l.Postgres())
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		c, err := pgconn.Connect(context.Background(), pgThrough(l))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		conn, err := amqp.Dial(amqpThrough(l))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ch := channelOf(t, conn)
		publish(t, ch, queue, "x")
		_, _ = c.Exec(ctx, "INSERT INTO "+table+" VALUES (1, 'x')").ReadAll()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if _, err := p.Lane(); err == nil {
			t.Error("a closed proxy opened a lane")
		}
	}
	once(Pass)
	before := runtime.NumGoroutine()
	for _, kind := range []ActionKind{Pass, Hold, Delay, Freeze, Cut, Blackhole, Fail, Shutdown} {
		once(kind)
	}
	var after int
	for range 500 {
		if after = runtime.NumGoroutine(); after <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Errorf("%d goroutines before, %d after:\n%s", before, after, buf[:runtime.Stack(buf, true)])
}

// TestSlowReader has a client that does not read what it asked for. Others go
// on, and the lane can be closed.
func TestSlowReader(t *testing.T) {
	p := newProxy(t, Config{})
	l := newLane(t, p)
	slow := connectPG(t, l)
	rows := slow.PgConn().Exec(context.Background(), "SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
	for range 20 {
		execPG(t, connectPG(t, l), "SELECT 1")
	}
	closeLane(t, l)
	if _, err := rows.ReadAll(); err == nil {
		t.Error("100 MB arrived at a client that did not read")
	}
}

// TestHeldConnectionStaysAlive holds a message for longer than the broker, or
// the client, waits for a heartbeat.
func TestHeldConnectionStaysAlive(t *testing.T) {
	if testing.Short() {
		t.Skip("takes five seconds")
	}
	for _, dir := range []Direction{ToServer, ToClient} {
		t.Run(map[Direction]string{ToServer: "publish", ToClient: "confirm"}[dir], func(t *testing.T) {
			t.Parallel()
			queue := makeQueue(t)
			name := "basic.publish " + queue
			if dir == ToClient {
				name = "basic.ack 1"
			}
			until := make(chan Action)
			decide, hit := at(dir, name, Action{Kind: Hold, Until: until})
			l := newLane(t, newProxy(t, Config{Decide: decide}))
			conn, err := amqp.DialConfig(amqpThrough(l), amqp.Config{Heartbeat: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ch := channelOf(t, conn)
			if err := ch.Confirm(false); err != nil {
				t.Fatal(err)
			}
			dc := publish(t, ch, queue, "x")
			await(t, "the hold", hit)
			select {
			case <-dc.Done():
				t.Fatal("settled while held")
			case <-time.After(5 * time.Second):
			}
			until <- Action{}
			if ok, err := dc.WaitContext(within(t, 5*time.Second)); !ok || err != nil {
				t.Errorf("after a long hold: %v %v", ok, err)
			}
		})
	}
}

func TestProcessesAndConnectionsAreNumbered(t *testing.T) {
	p := newProxy(t, Config{})
	for process := 1; process <= 2; process++ {
		l := newLane(t, p)
		if l.Process() != process {
			t.Errorf("lane %d is for process %d", process, l.Process())
		}
		for range 2 {
			execPG(t, connectPG(t, l), "SELECT 1")
			channelOf(t, connectAMQP(t, l))
		}
	}
	first := map[string]bool{}
	for _, m := range p.Trace().Messages {
		if m.Step && m.Dir == ToServer && m.Index == 1 {
			first[m.String()] = true
		}
	}
	for _, want := range []string{"p1.pg1>1 SELECT 1", "p1.pg2>1 SELECT 1", "p2.pg2>1 SELECT 1", "p1.amqp2>1 channel.open", "p2.amqp1>1 channel.open"} {
		if !first[want] {
			t.Errorf("no %s in %v", want, first)
		}
	}
}

// TestConnectAfterFreeze connects to a lane that is frozen: nothing happens,
// until the lane closes.
func TestConnectAfterFreeze(t *testing.T) {
	p := newProxy(t, Config{})
	l := newLane(t, p)
	l.Freeze()
	result := make(chan error, 1)
	go func() {
		_, err := pgconn.Connect(context.Background(), pgThrough(l))
		result <- err
	}()
	select {
	case err := <-result:
		t.Fatalf("a connection was made, or refused: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	closeLane(t, l)
	if err := await(t, "the client to notice", result); err == nil {
		t.Error("connected through a closed lane")
	}
	if n := len(p.Trace().Messages); n != 0 {
		t.Errorf("%d messages passed a frozen lane", n)
	}
}

func TestTraceIsBounded(t *testing.T) {
	p := newProxy(t, Config{MaxTrace: 10, MaxDetail: 8})
	c := connectPG(t, newLane(t, p))
	for range 10 {
		execPG(t, c, "SELECT 'long enough to be cut'")
	}
	tr := p.Trace()
	if len(tr.Messages) != 10 || tr.Dropped == 0 || p.Steps() != 20 {
		t.Errorf("%d messages, %d dropped, %d steps", len(tr.Messages), tr.Dropped, p.Steps())
	}
	for i, m := range tr.Messages {
		if m.Seq != i+1 || len(m.Detail) > 8 {
			t.Errorf("message %d: %d %q", i, m.Seq, m.Detail)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, cfg := range []Config{{}, {Postgres: "localhost"}, {AMQP: "amqp://localhost"}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func TestOneProtocol(t *testing.T) {
	p, err := New(Config{AMQP: servers.amqpAddr})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l := newLane(t, p)
	if l.Postgres() != "" {
		t.Error("an address without a server behind it")
	}
	channelOf(t, connectAMQP(t, l))
}

// TestNonsense sends what is neither protocol.
func TestNonsense(t *testing.T) {
	p := newProxy(t, Config{})
	l := newLane(t, p)
	for _, c := range []struct{ addr, send string }{
		{l.AMQP(), "GET / HTTP/1.1\r\n\r\n"},
		{l.AMQP(), "\x16\x03\x01\x00\xf1\x01\x00\x00\xed"},
		{l.Postgres(), "GET / HTTP/1.1\r\n\r\n"},
		{l.Postgres(), "\x16\x03\x01\x00\xf1\x01\x00\x00\xed"},
		{l.AMQP(), "AMQP\x00\x00\x09\x01\x07\x00\x00\x00\x00\x00\x00\x00"},
	} {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, c.send)
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%q is still connected", c.send)
		}
		_ = conn.Close()
	}
	tr := p.Trace()
	if last := tr.Messages[len(tr.Messages)-1]; last.Type != "malformed" || last.Detail == "" {
		t.Errorf("the trace ends with %+v", last)
	}
}

// TestEncryptionRequests asks as libpq does, for GSSAPI and then for TLS, in one
// packet with the start-up that follows.
func TestEncryptionRequests(t *testing.T) {
	l := newLane(t, newProxy(t, Config{}))
	conn, err := net.Dial("tcp", l.Postgres())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	request := func(code uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)
	}
	b := append(request(pgGSSENCRequest), request(pgSSLRequest)...)
	startup := []byte("\x00\x00\x00\x00\x00\x03\x00\x00user\x00nobody_at_all\x00\x00")
	binary.BigEndian.PutUint32(startup, uint32(len(startup)))
	if _, err := conn.Write(append(b, startup...)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 3)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer[:2]) != "NN" || answer[2] != 'R' && answer[2] != 'E' {
		t.Errorf("answered %q, %v", answer, err)
	}
}
