package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

// TestFreezeIsAConsistentCut stops a process between a publish on one server and
// the COMMIT on the other, and checks that after Close the servers are rid of
// it.
func TestFreezeIsAConsistentCut(t *testing.T) {
	table, queue := makeTable(t), makeQueue(t)
	execPG(t, connectPG(t, nil), "INSERT INTO "+table+" VALUES (0, 'old')")
	for range 20 {
		decide, hit := at(ToServer, "COMMIT", Action{Kind: Freeze})
		p := newProxy(t, Config{Decide: decide})
		l := newLane(t, p)
		c := connectPG(t, l)
		ch := channelOf(t, connectAMQP(t, l))
		if err := ch.Confirm(false); err != nil {
			t.Fatal(err)
		}
		ctx := within(t, 10*time.Second)
		tx, err := c.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, "SELECT * FROM "+table+" FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, "INSERT INTO "+table+" VALUES (1, 'x')"); err != nil {
			t.Fatal(err)
		}
		if ok, err := publish(t, ch, queue, "published before").WaitContext(ctx); !ok || err != nil {
			t.Fatal(ok, err)
		}
		committed := make(chan error, 1)
		go func() { committed <- tx.Commit(ctx) }()
		m := await(t, "the COMMIT", hit)
		if m.Effect != Commit {
			t.Errorf("COMMIT has effect %q", m.Effect)
		}
		for !l.Frozen() {
			time.Sleep(time.Millisecond)
		}
		publish(t, ch, queue, "published after")
		if err := l.Close(within(t, 5*time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := await(t, "the client to notice", committed); err == nil {
			t.Error("a frozen COMMIT succeeded")
		}
		// At once, without waiting: no lock is held, and one message is there.
		direct := connectPG(t, nil)
		execPG(t, direct, "SELECT * FROM "+table+" FOR UPDATE NOWAIT")
		if n := countPG(t, table); n != 1 {
			t.Fatalf("%d rows, want 1: the COMMIT was frozen", n)
		}
		d, ok, err := channelOf(t, connectAMQP(t, nil)).Get(queue, true)
		if err != nil || !ok || string(d.Body) != "published before" || d.MessageCount != 0 {
			t.Fatalf("got %q, %d more, %v, %v", d.Body, d.MessageCount, ok, err)
		}
		tr := p.Trace()
		if last := tr.Messages[len(tr.Messages)-1]; last.Name != "COMMIT" || last.Fault != string(Freeze) {
			t.Fatalf("the trace ends with %+v", last)
		}
	}
}

// TestCloseGivesDeliveriesBack checks that unsettled deliveries are back in
// their queue when Close returns.
func TestCloseGivesDeliveriesBack(t *testing.T) {
	queue := makeQueue(t)
	setup := channelOf(t, connectAMQP(t, nil))
	if err := setup.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if !publish(t, setup, queue, fmt.Sprint(i)).Wait() {
			t.Fatal("refused")
		}
	}
	for _, freeze := range []bool{true, false} {
		for range 20 {
			p := newProxy(t, Config{})
			l := newLane(t, p)
			ch := channelOf(t, connectAMQP(t, l))
			deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				await(t, "a delivery", deliveries)
			}
			if freeze {
				l.Freeze()
			}
			if err := l.Close(within(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			q, err := setup.QueueDeclarePassive(queue, true, false, false, false, nil)
			if err != nil || q.Messages != 20 || q.Consumers != 0 {
				t.Fatalf("freeze %v: right after Close there are %d messages and %d consumers: %v", freeze, q.Messages, q.Consumers, err)
			}
		}
	}
}

func TestCutPostgres(t *testing.T) {
	for _, dir := range []Direction{ToServer, ToClient} {
		t.Run(map[Direction]string{ToServer: "before", ToClient: "after"}[dir], func(t *testing.T) {
			table := makeTable(t)
			name := "COMMIT"
			if dir == ToClient {
				name = "COMMIT done"
			}
			decide, hit := at(dir, name, Action{Kind: Cut})
			p := newProxy(t, Config{Decide: decide})
			l := newLane(t, p)
			c := connectPG(t, l)
			ctx := within(t, 5*time.Second)
			err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO "+table+" VALUES (1, 'x')")
				return err
			})
			await(t, "the cut", hit)
			if err == nil {
				t.Fatal("the commit succeeded on a cut connection")
			}
			closeLane(t, l)
			want := 0
			if dir == ToClient {
				want = 1 // the server had committed, and nobody was told
			}
			if n := countPG(t, table); n != want {
				t.Errorf("%d rows, want %d", n, want)
			}
		})
	}
}

func TestCutAMQP(t *testing.T) {
	queue := makeQueue(t)
	decide, hit := at(ToClient, "basic.ack 1", Action{Kind: Cut})
	p := newProxy(t, Config{Decide: decide})
	l := newLane(t, p)
	conn := connectAMQP(t, l)
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	ch := channelOf(t, conn)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	publish(t, ch, queue, "x")
	await(t, "the cut", hit)
	await(t, "the client to notice", closed)
	// The process lives, and may come again.
	again := channelOf(t, connectAMQP(t, l))
	if d, ok, err := again.Get(queue, true); !ok || err != nil || string(d.Body) != "x" {
		t.Errorf("the message that passed before the cut: %v %v", ok, err)
	}
	for _, m := range p.Trace().Messages {
		if m.Conn > 2 || m.Process != 1 {
			t.Errorf("message at %s", m.Point)
		}
	}
}

func TestBlackholePublish(t *testing.T) {
	queue := makeQueue(t)
	decide, hit := at(ToServer, "basic.publish "+queue, Action{Kind: Blackhole})
	p := newProxy(t, Config{Decide: decide})
	l := newLane(t, p)
	conn := connectAMQP(t, l)
	ch := channelOf(t, conn)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	dc := publish(t, ch, queue, "swallowed")
	await(t, "the blackhole", hit)
	publish(t, ch, queue, "this too")
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := dc.WaitContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a swallowed publish was settled: %v", err)
	}
	if conn.IsClosed() {
		t.Error("a blackhole closed the connection")
	}
	closeLane(t, l)
	if n := countAMQP(t, queue); n != 0 {
		t.Errorf("%d messages came through", n)
	}
	swallowed := 0
	for _, m := range p.Trace().Messages {
		if m.Fault == string(Blackhole) {
			swallowed++
		}
	}
	if swallowed != 2 {
		t.Errorf("%d messages recorded as swallowed, want 2", swallowed)
	}
}

func TestBlackholeAnswer(t *testing.T) {
	table := makeTable(t)
	decide, hit := at(ToClient, "INSERT "+table+" done", Action{Kind: Blackhole})
	p := newProxy(t, Config{Decide: decide})
	l := newLane(t, p)
	c := connectPG(t, l)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := c.Exec(ctx, "INSERT INTO "+table+" VALUES (1, 'x')")
	await(t, "the blackhole", hit)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
	closeLane(t, l)
	if n := countPG(t, table); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

func TestHold(t *testing.T) {
	table := makeTable(t)
	until := make(chan Action)
	decide, hit := at(ToServer, "INSERT "+table, Action{Kind: Hold, Until: until})
	p := newProxy(t, Config{Decide: decide})
	l := newLane(t, p)
	held, other := connectPG(t, l), connectPG(t, l)
	result := make(chan error, 1)
	go func() {
		_, err := held.Exec(context.Background(), "INSERT INTO "+table+" VALUES (1, 'x')")
		result <- err
	}()
	await(t, "the hold", hit)
	execPG(t, other, "SELECT 1") // other streams go on
	if n := countPG(t, table); n != 0 {
		t.Fatal("a held statement reached the server")
	}
	until <- Action{}
	if err := await(t, "the held statement", result); err != nil {
		t.Fatal(err)
	}
	if n := countPG(t, table); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
	// It is recorded when it passes, with the number it got when it arrived.
	got := steps(p.Trace(), nil)
	if want := []string{"> SELECT 1", "< SELECT 1 done", "> INSERT " + table, "< INSERT " + table + " done"}; !slices.Equal(got, want) {
		t.Errorf("steps %q", got)
	}
}

func TestHoldThenFault(t *testing.T) {
	table := makeTable(t)
	for _, kind := range []ActionKind{Freeze, Cut} {
		until := make(chan Action, 1)
		decide, hit := at(ToServer, "INSERT "+table, Action{Kind: Hold, Until: until})
		p := newProxy(t, Config{Decide: decide})
		l := newLane(t, p)
		c := connectPG(t, l)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		result := make(chan error, 1)
		go func() {
			_, err := c.Exec(ctx, "INSERT INTO "+table+" VALUES (1, 'x')")
			result <- err
		}()
		await(t, "the hold", hit)
		until <- Action{Kind: kind}
		if kind == Freeze {
			for !l.Frozen() {
				time.Sleep(time.Millisecond)
			}
		} else if err := await(t, "the client to notice", result); err == nil {
			t.Error("no error on a cut connection")
		}
		closeLane(t, l)
		if kind == Freeze {
			await(t, "the client to notice", result)
		}
		cancel()
		if n := countPG(t, table); n != 0 {
			t.Errorf("%s: %d rows, want 0", kind, n)
		}
	}
}

func TestHoldEndsWithTheLane(t *testing.T) {
	queue := makeQueue(t)
	decide, hit := at(ToServer, "basic.publish "+queue, Action{Kind: Hold})
	p := newProxy(t, Config{Decide: decide})
	l := newLane(t, p)
	ch := channelOf(t, connectAMQP(t, l))
	publish(t, ch, queue, "held")
	await(t, "the hold", hit)
	publish(t, ch, queue, "behind it")
	closeLane(t, l)
	if n := countAMQP(t, queue); n != 0 {
		t.Errorf("%d messages passed a hold that nobody ended", n)
	}
}

func TestDelay(t *testing.T) {
	table := makeTable(t)
	const d = 80 * time.Millisecond
	decide, hit := at(ToServer, "INSERT "+table, Action{Kind: Delay, For: d})
	p := newProxy(t, Config{Decide: decide})
	c := connectPG(t, newLane(t, p))
	began := time.Now()
	execPG(t, c, "INSERT INTO "+table+" VALUES (1, 'x')")
	if took := time.Since(began); took < d {
		t.Errorf("it took %v", took)
	}
	await(t, "the delay", hit)
	for _, m := range p.Trace().Messages {
		if m.Fault == string(Delay) && m.Name == "INSERT "+table {
			return
		}
	}
	t.Error("no delay in the trace")
}

// TestEndIdle holds an advisory lock in one session, and works in a transaction
// in another: the first ends, the second goes on.
func TestEndIdle(t *testing.T) {
	const lock = "SELECT pg_try_advisory_lock(77001)"
	table := makeTable(t)
	l := newLane(t, newProxy(t, Config{}))
	holder, worker := connectPG(t, l), connectPG(t, l)
	execPG(t, holder, lock)
	ctx := within(t, 10*time.Second)
	tx, err := worker.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO "+table+" VALUES (1, 'x')"); err != nil {
		t.Fatal(err)
	}
	if n := l.EndIdle(); n != 1 {
		t.Fatalf("%d sessions ended, want that which is not in a transaction", n)
	}
	direct := connectPG(t, nil)
	for free := false; !free; {
		if err := direct.QueryRow(ctx, lock).Scan(&free); err != nil {
			t.Fatal("the lock of the session that ended is not free: ", err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := holder.Ping(ctx); err == nil {
		t.Error("the session that ended still answers")
	}
	if n := countPG(t, table); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
	if n := l.EndIdle(); n != 1 {
		t.Errorf("%d sessions ended, want the one whose transaction is over", n)
	}
}

// TestCloseLetsWhatWasSentPass closes a lane right after the client has sent
// something without waiting for an answer.
func TestCloseLetsWhatWasSentPass(t *testing.T) {
	queue := makeQueue(t)
	for i := range 50 {
		p := newProxy(t, Config{})
		l := newLane(t, p)
		ch := channelOf(t, connectAMQP(t, l))
		publish(t, ch, queue, "last words")
		closeLane(t, l)
		if n := countAMQP(t, queue); n != i+1 {
			t.Fatalf("%d messages, want %d", n, i+1)
		}
	}
}

// TestCloseLetsTheServerFinish closes a lane while PostgreSQL is at work on what
// was sent, with a server that looks out for clients that have gone.
func TestCloseLetsTheServerFinish(t *testing.T) {
	table := makeTable(t)
	for i := range 5 {
		p := newProxy(t, Config{})
		l := newLane(t, p)
		c := connectPG(t, l)
		execPG(t, c, "SET client_connection_check_interval = 1")
		before := p.Steps()
		result := make(chan error, 1)
		go func() {
			_, err := c.Exec(context.Background(), fmt.Sprintf("SELECT pg_sleep(0.05); INSERT INTO %s VALUES (%d, 'x')", table, i))
			result <- err
		}()
		for p.Steps() == before {
			time.Sleep(time.Millisecond)
		}
		l.Freeze()
		closeLane(t, l)
		await(t, "the client to notice", result)
		if n := countPG(t, table); n != i+1 {
			t.Fatalf("%d rows, want %d: what was forwarded was not done", n, i+1)
		}
	}
}

// TestCloseDoesNotWaitForLocks closes a lane whose statement waits for a lock
// that somebody else keeps.
func TestCloseDoesNotWaitForLocks(t *testing.T) {
	table := makeTable(t)
	holder := connectPG(t, nil)
	execPG(t, holder, "BEGIN; LOCK TABLE "+table)
	p := newProxy(t, Config{})
	l := newLane(t, p)
	c := connectPG(t, l)
	execPG(t, c, "SET client_connection_check_interval = 10")
	before := p.Steps()
	result := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "DELETE FROM "+table)
		result <- err
	}()
	for p.Steps() == before {
		time.Sleep(time.Millisecond)
	}
	closeLane(t, l)
	await(t, "the client to notice", result)
}

func TestCloseGivesUp(t *testing.T) {
	p := newProxy(t, Config{})
	l := newLane(t, p)
	c := connectPG(t, l)
	execPG(t, c, "SET client_connection_check_interval = 0")
	before := p.Steps()
	result := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "SELECT pg_sleep(3)")
		result <- err
	}()
	for p.Steps() == before {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	err := l.Close(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 connections") {
		t.Errorf("Close returned %v", err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Errorf("the second Close returned %v", err)
	}
	await(t, "the client to notice", result)
}

func TestServerUnreachable(t *testing.T) {
	p, err := New(Config{Postgres: closedPort(t), AMQP: closedPort(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l := newLane(t, p)
	_, err = pgx.Connect(within(t, 5*time.Second), pgThrough(l))
	if err == nil || !strings.Contains(err.Error(), "08006") {
		t.Errorf("pgx: %v", err)
	}
	if _, err := amqp.Dial(amqpThrough(l)); err == nil {
		t.Error("amqp: connected to nothing")
	}
}
