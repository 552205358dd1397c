package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/state"
	"crashcourse/pkg/wire"
)

// bench is a lab under test.
type bench struct {
	*Lab
	out strings.Builder // what a cell would have shown
}

// open opens a lab for a test, with an orders table and a queue, and removes it
// in the end.
func open(t *testing.T, notebook string) *bench {
	t.Helper()
	b := &bench{Lab: Open(notebook)}
	if b.role != nil {
		return b
	}
	b.Lab.out = &output{text: &b.out}
	b.stderr = &b.out
	b.exit = func(int) { t.Fatal(b.out.String()) }
	b.Fresh()
	b.SQL(`CREATE TABLE orders (id text PRIMARY KEY, customer text)`)
	b.Queue("shipping", "order.#")
	t.Cleanup(func() {
		b.db.Close()
		ctx := context.Background()
		admin, err := postgres.Open(ctx, b.at.servers.Postgres)
		if err != nil {
			t.Error(err)
			return
		}
		defer admin.Close()
		mq, err := broker.NewAdmin(b.at.servers.Management)
		if err != nil {
			t.Error(err)
			return
		}
		if err := errors.Join(postgres.DropDatabase(ctx, admin, b.at.name), postgres.DropRole(ctx, admin, b.at.name),
			mq.DeleteVhost(ctx, b.at.name), mq.DeleteUser(ctx, b.at.name), os.Remove(b.at.file)); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) rows(t *testing.T, sql string) int {
	t.Helper()
	var n int
	if err := b.DB().QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// placeOrder stores an order, then publishes.
func placeOrder(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	if _, err := db.Exec(ctx, `INSERT INTO orders VALUES ('A', 'Ada')`); err != nil {
		return err
	}
	return publish(ctx, conn, "a-1", `{"order": "A", "n": 1}`)
}

func publish(ctx context.Context, conn *amqp.Connection, id, body string) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return ch.PublishWithContext(ctx, Exchange, "order.placed", false, false, amqp.Publishing{MessageId: id, Body: []byte(body)})
}

// poll looks for orders for ever, and finds none.
func poll(ctx context.Context, db *pgxpool.Pool, _ *amqp.Connection) error {
	for ctx.Err() == nil {
		if _, err := db.Exec(ctx, `SELECT * FROM orders WHERE false`); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func names(tr wire.Trace) string {
	var all []string
	for _, m := range tr.Messages {
		all = append(all, m.Name)
	}
	return strings.Join(all, ", ")
}

func TestRun(t *testing.T) {
	b := open(t, "test_run")
	tr := b.Run(placeOrder)
	if b.role != nil {
		return
	}
	if got := names(tr); !strings.Contains(got, "INSERT orders") || !strings.Contains(got, "basic.publish order.placed") {
		t.Errorf("the trace holds %s", got)
	}
	if all := b.Peek("shipping"); len(all) != 1 || all[0].ID != "a-1" || all[0].Note != "" {
		t.Errorf("the queue holds %+v", all)
	}
	if all := b.Peek("shipping"); len(all) != 1 {
		t.Errorf("after a look the queue holds %+v", all)
	}
	if !strings.Contains(b.out.String(), "The process returned nil.") {
		t.Errorf("it says:\n%s", b.out.String())
	}
}

func TestKill(t *testing.T) {
	b := open(t, "test_kill")
	b.Run(placeOrder, Kill("basic.publish"))
	if n := len(b.Peek("shipping")); n != 0 {
		t.Errorf("%d messages came through", n)
	}
	b.Purge("shipping")
	b.SQL("DELETE FROM orders")
	b.Run(placeOrder, Kill("COMMIT"), Kill("INSERT orders"))
	if b.role != nil {
		return
	}
	if n := b.rows(t, "SELECT count(*) FROM orders"); n != 0 {
		t.Errorf("there are %d orders", n)
	}
	for _, want := range []string{"The process was killed.", "The fault never struck: no message number 1 was named COMMIT."} {
		if !strings.Contains(b.out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, b.out.String())
		}
	}
}

// publishInside publishes before it commits.
func publishInside(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	if err := publish(ctx, conn, "b-1", ""); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// What the process had sent on its other connection is not lost with it.
func TestKillLetsEarlierMessagesThrough(t *testing.T) {
	b := open(t, "test_kill_earlier")
	for range 5 {
		b.Purge("shipping")
		b.Run(publishInside, Kill("COMMIT"))
		if b.role == nil && len(b.Peek("shipping")) != 1 {
			t.Fatal("a message that was sent before the COMMIT did not arrive")
		}
	}
}

// shout prints, and returns an error.
func shout(context.Context, *pgxpool.Pool, *amqp.Connection) error {
	os.Stdout.WriteString("hear, hear\n")
	return errors.New("no good")
}

func quit(context.Context, *pgxpool.Pool, *amqp.Connection) error {
	os.Exit(7)
	return nil
}

func TestEnds(t *testing.T) {
	b := open(t, "test_ends")
	if b.role != nil {
		os.Stdout.WriteString("not to be heard\n")
	}
	b.Run(shout)
	b.Run(quit)
	b.Run(poll)
	b.Run(placeOrder, Blackhole("INSERT orders"))
	if b.role != nil {
		return
	}
	for _, want := range []string{"returned an error: no good", "hear, hear", "ended before its function returned (exit status 7)",
		"had nothing more to do, and was stopped", "was cut off, and was killed in the end"} {
		if !strings.Contains(b.out.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if strings.Contains(b.out.String(), "not to be heard") {
		t.Error("a process printed what stands before its function")
	}
}

func second(ctx context.Context, _ *pgxpool.Pool, conn *amqp.Connection) error {
	return publish(ctx, conn, "a-2", `{"order": "A", "n": 2}`)
}

// A held message passes when the other process has done its work.
func TestTogether(t *testing.T) {
	b := open(t, "test_together")
	b.Together([]Work{placeOrder, second}, Hold("INSERT orders"))
	if b.role != nil {
		return
	}
	all := b.Peek("shipping")
	if len(all) != 2 || all[0].ID != "a-2" || !strings.Contains(all[1].Note, "too late: after n=2 of order A") {
		t.Errorf("the queue holds %+v", all)
	}
}

// drain consumes orders, acks each, and waits for more until it is asked to stop.
func drain(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	deliveries, err := ch.ConsumeWithContext(ctx, "shipping", "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for d := range deliveries {
		if _, err := db.Exec(ctx, `INSERT INTO orders VALUES ($1, '') ON CONFLICT DO NOTHING`, d.MessageId); err != nil {
			return err
		}
		if err := d.Ack(false); err != nil {
			return err
		}
	}
	return nil
}

// What Try does is seen by what came of it.
func TestTry(t *testing.T) {
	b := open(t, "test_try")
	b.Publish("order.placed", amqp.Publishing{MessageId: "a-1"}, amqp.Publishing{MessageId: "a-2"})
	b.Try(drain, Kill("basic.ack").Nth(2))
	tr := b.Try(drain)
	if b.role != nil {
		return
	}
	if n := b.Int(`SELECT count(*) FROM orders`); n != 2 {
		t.Errorf("%d orders", n)
	}
	if got := strings.Count(names(tr), "basic.deliver"); got != 1 {
		t.Errorf("after the kill %d messages are delivered: %s", got, names(tr))
	}
	if n := len(b.Peek("shipping")); n != 0 {
		t.Errorf("%d messages are left", n)
	}
	if strings.Contains(b.out.String(), "process 1") {
		t.Errorf("it draws:\n%s", b.out.String())
	}
	b.Try(drain, Kill("COMMIT"))
	if !strings.Contains(b.out.String(), "The fault never struck") {
		t.Error("it does not say that the fault never struck")
	}
}

func TestPublish(t *testing.T) {
	b := open(t, "test_publish")
	if err := b.publish("payment.received", []amqp.Publishing{{MessageId: "p-1"}}); err == nil || !strings.Contains(err.Error(), "no queue is bound") {
		t.Errorf("published to nobody: %v", err)
	}
	b.Publish("order.placed", amqp.Publishing{MessageId: "a-1"}, amqp.Publishing{MessageId: "a-1"})
	if all := b.Peek("shipping"); len(all) != 2 || all[1].Note != "again: same id as 1" {
		t.Errorf("the queue holds %+v", all)
	}
}

// What a live session has locked does not hang a cell for ever.
func TestLockedOut(t *testing.T) {
	b := open(t, "test_locked_out")
	tx, err := b.DB().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `INSERT INTO orders VALUES ('A', 'Ada')`); err != nil {
		t.Fatal(err)
	}
	said := false
	b.exit = func(int) { said = true }
	b.SQL(`SET lock_timeout = 10; TRUNCATE orders`)
	if !said || !strings.Contains(b.out.String(), "a live session of this notebook") {
		t.Errorf("it says:\n%s", b.out.String())
	}
}

func TestInterrupt(t *testing.T) {
	b := open(t, "test_interrupt")
	if b.role != nil {
		b.Run(poll)
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	r := &run{lab: b.Lab, works: []Work{poll}, events: make(chan func(), 64)}
	b.calls++
	began := time.Now()
	b.ctx = ctx
	if err := r.do(ctx); !errors.Is(err, context.Canceled) || time.Since(began) > 5*time.Second {
		t.Errorf("interrupted after %v: %v", time.Since(began), err)
	}
	for _, p := range r.procs {
		select {
		case <-p.Ended():
		case <-time.After(5 * time.Second):
			t.Error("a process outlives its cell")
		}
	}
}

func TestMeasure(t *testing.T) {
	b := open(t, "test_measure")
	got := b.Measure("shipping", poll, func(ctx context.Context, _ *pgxpool.Pool, id uuid.UUID) error {
		return publish(ctx, b.Conn(), id.String(), "")
	})
	if len(got.MS) != measuredEvents || got.Idle < 5 {
		t.Errorf("%d events, %v messages a second", len(got.MS), got.Idle)
	}
}

func TestSentences(t *testing.T) {
	t.Setenv(state.PostgresEnv, "postgres://u:secret@127.0.0.1:1/db")
	t.Setenv(state.AMQPEnv, "amqp://u:secret@127.0.0.1:1/")
	t.Setenv(state.DirEnv, t.TempDir())
	p, err := findPlace("01_outbox")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.openDB(t.Context()); err == nil || !strings.Contains(err.Error(), "run its first code cell") {
		t.Errorf("before the first cell: %v", err)
	}
	if err := p.make(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot be used") || strings.Contains(err.Error(), "secret") {
		t.Errorf("servers down: %v", err)
	}
	p.servers.Kind = "private"
	if err := p.down("PostgreSQL", errors.New("x")); !strings.Contains(err.Error(), "crashcourse up") {
		t.Errorf("private servers down: %v", err)
	}
	for _, bad := range []string{"", "a/b", "Übung", strings.Repeat("x", 33)} {
		if _, err := findPlace(bad); err == nil {
			t.Errorf("%q passes for a notebook's name", bad)
		}
	}
	if err := os.MkdirAll(filepath.Dir(p.file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := findPlace("01_outbox"); err != nil || p.card != nil {
		t.Errorf("a damaged card: %v", err)
	}
}

func TestHint(t *testing.T) {
	t.Setenv(state.DirEnv, t.TempDir())
	want := func(part string) {
		t.Helper()
		got, err := hint("outbox/relay")
		if err != nil || !strings.Contains(got, part) {
			t.Errorf("the hint is %q (%v), want %q", got, err, part)
		}
	}
	want("run its cell first")
	v := crash.Verdict{Version: 1, Exercise: "outbox/relay", Verdict: crash.Fail, Seed: 1,
		Failure: &crash.Failure{Invariant: "no-lost-event", Hints: []string{"one", "two", "three"}}}
	record := func() {
		t.Helper()
		if err := exercise.Record(v, nil); err != nil {
			t.Fatal(err)
		}
	}
	record()
	want("Hint 2 of 3, about no-lost-event: two")
	want("Hint 3 of 3, about no-lost-event: three That is the last one.")
	want("Hint 3 of 3")
	v.Seed = 2
	record()
	want("Hint 2 of 3")
	v.Verdict, v.Failure = crash.Pass, nil
	record()
	want("passes")
}

func TestTidy(t *testing.T) {
	var tr wire.Trace
	add := func(dir wire.Direction, name string, effect wire.Effect) {
		tr.Messages = append(tr.Messages, wire.Message{Seq: len(tr.Messages) + 1, Step: true, Name: name, Effect: effect,
			Point: wire.Point{Process: 1, Protocol: wire.PG, Conn: 1, Dir: dir}})
	}
	look := func() {
		add(wire.ToServer, "SELECT outbox", "")
		add(wire.ToClient, "SELECT outbox done", "")
	}
	idleTx := func() {
		add(wire.ToServer, "BEGIN", "")
		add(wire.ToClient, "BEGIN done", "")
		look()
		add(wire.ToServer, "COMMIT", wire.Commit)
		add(wire.ToClient, "COMMIT done", wire.Done)
	}
	look()
	look()
	look()
	add(wire.ToServer, "UPDATE outbox", wire.Write)
	add(wire.ToClient, "UPDATE outbox done", wire.Done)
	idleTx()
	idleTx()
	add(wire.ToServer, "DELETE outbox", wire.Write)
	add(wire.ToClient, "DELETE outbox done", wire.Done)
	look()
	want := "SELECT outbox, SELECT outbox done, UPDATE outbox, UPDATE outbox done, " +
		"BEGIN, BEGIN done, SELECT outbox, SELECT outbox done, COMMIT, COMMIT done, DELETE outbox, DELETE outbox done"
	if got := names(tidy(tr, true)); got != want {
		t.Errorf("calm:\n%s\nwant\n%s", got, want)
	}
	if got := names(tidy(tr, false)); got != want+", SELECT outbox, SELECT outbox done" {
		t.Errorf("cut short:\n%s", got)
	}
}

func TestRoles(t *testing.T) {
	r := role{call: 2, work: 1}
	if got := roleOf(r.String()); got == nil || *got != r {
		t.Errorf("%v is read as %v", r, got)
	}
	for _, s := range []string{"", "x", "1"} {
		if got := roleOf(s); got != nil {
			t.Errorf("%q is read as %v", s, got)
		}
	}
	if nameOf(placeOrder) != "placeOrder" || nameOf(func() {}) != "a function" {
		t.Errorf("names: %q, %q", nameOf(placeOrder), nameOf(func() {}))
	}
}
