package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/outbox"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/state"
)

// relay is one of those that are compared.
type relay struct {
	name    string
	remark  string
	ceiling bool // no relay: it only publishes
	slow    bool // so slow that a tenth of the backlog will do
	live    bool // the backlog is committed while it runs, in one transaction

	run    func(ctx context.Context, db *pgxpool.Pool, amqpURL string) error // in its own process
	outbox box
}

// box is the kind of table that a relay reads.
type box interface {
	prepare(context.Context, *pgxpool.Pool) error
	add(context.Context, pgx.Tx, []event) error
	// settled tells that nothing is left to do.
	settled(context.Context, *pgxpool.Pool) (bool, error)
}

var relays = []relay{
	{name: "publish only", remark: "the ceiling", ceiling: true, run: publishOnly, outbox: ours{}},
	{name: "publish only, gathered", remark: "see broker.GatherWrites", ceiling: true, run: publishOnlyGathered, outbox: ours{}},
	{name: "polling", run: ourRelay(outbox.Options{Source: outbox.Polling}), outbox: ours{}},
	{name: "polling, deleting", run: ourRelay(outbox.Options{Source: outbox.Polling, Delete: true}), outbox: ours{}},
	{name: "notify", run: ourRelay(outbox.Options{Source: outbox.Notify}), outbox: ours{}},
	{name: "CDC", live: true, run: ourRelay(outbox.Options{Source: outbox.CDC}), outbox: ours{}},
	{name: "Watermill", remark: "confirms, pool of 10 channels", slow: true, run: watermill(true), outbox: theirs{}},
	{name: "Watermill, unsafe", remark: "no confirms", run: watermill(false), outbox: theirs{}},
}

// event is something to be told.
type event struct {
	id        string
	aggregate string
	n         int // in the order of the aggregate
	payload   []byte
}

// ours is this repository's table.
type ours struct{}

func (ours) prepare(ctx context.Context, db *pgxpool.Pool) error { return outbox.Migrate(ctx, db) }

func (ours) add(ctx context.Context, tx pgx.Tx, events []event) error {
	rows := make([]outbox.Event, len(events))
	for i, e := range events {
		rows[i] = outbox.Event{ID: mustUUID(e.id), AggregateID: e.aggregate, Type: "order.changed", Payload: rawJSON(e.payload)}
	}
	_, err := outbox.Enqueue(ctx, tx, rows...)
	return err
}

func (ours) settled(ctx context.Context, db *pgxpool.Pool) (done bool, err error) {
	err = db.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM outbox WHERE published_at IS NULL)").Scan(&done)
	return done, err
}

func ourRelay(o outbox.Options) func(context.Context, *pgxpool.Pool, string) error {
	return func(ctx context.Context, db *pgxpool.Pool, amqpURL string) error {
		o.Dial = func(ctx context.Context) (*amqp.Connection, error) {
			return broker.Dial(ctx, amqpURL, broker.GatherWrites)
		}
		o.MaxRetry = time.Second // for the fault in which no queue is bound
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
		r, err := outbox.NewRelay(db, o)
		if err != nil {
			return err
		}
		return r.Run(ctx)
	}
}

// publishOnly reads what is pending and publishes it, all of it from memory,
// with 1,000 unconfirmed messages at a time. What it does before the first message
// is not timed.
func publishOnly(ctx context.Context, db *pgxpool.Pool, amqpURL string) error {
	return publishAll(ctx, db, amqpURL)
}

func publishOnlyGathered(ctx context.Context, db *pgxpool.Pool, amqpURL string) error {
	return publishAll(ctx, db, amqpURL, broker.GatherWrites)
}

func publishAll(ctx context.Context, db *pgxpool.Pool, amqpURL string, configure ...func(*amqp.Config)) error {
	rows, err := db.Query(ctx, "SELECT message_id::text, aggregate_id, type, payload::text, created_at FROM outbox ORDER BY seq")
	if err != nil {
		return err
	}
	type row struct {
		id, aggregate, kind string
		payload             []byte
		created             time.Time
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (m row, err error) {
		return m, r.Scan(&m.id, &m.aggregate, &m.kind, &m.payload, &m.created)
	})
	if err != nil {
		return err
	}
	conn, err := broker.Dial(ctx, amqpURL, configure...)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	const size = 1000
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, size))
	returns := ch.NotifyReturn(make(chan amqp.Return, size))
	unconfirmed := 0
	take := func(c amqp.Confirmation, open bool) error {
		if !open || !c.Ack {
			return fmt.Errorf("message %d was refused", c.DeliveryTag)
		}
		unconfirmed--
		return nil
	}
	for _, m := range all {
		for unconfirmed == size || len(confirms) > 0 {
			c, open := <-confirms
			if err := take(c, open); err != nil {
				return err
			}
		}
		err := ch.Publish("events", m.kind, true, false, amqp.Publishing{
			Headers: amqp.Table{outbox.AggregateHeader: m.aggregate}, MessageId: m.id, Type: m.kind,
			ContentType: "application/json", DeliveryMode: amqp.Persistent, Timestamp: m.created, Body: m.payload,
		})
		if err != nil {
			return err
		}
		unconfirmed++
	}
	for unconfirmed > 0 {
		c, open := <-confirms
		if err := take(c, open); err != nil {
			return err
		}
	}
	if len(returns) > 0 {
		return fmt.Errorf("%d messages came back", len(returns))
	}
	_, err = db.Exec(context.WithoutCancel(ctx), "TRUNCATE outbox") // the sign that it is done
	return err
}

// roleEnv names the relay that a process of this program is.
const roleEnv = "BENCH_RELAY"

// play is what such a process does, until it is told to stop.
func play(name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	db, err := postgres.Open(ctx, os.Getenv(state.PostgresEnv))
	if err != nil {
		return err
	}
	defer db.Close()
	for _, r := range relays {
		if r.name == name {
			return r.run(ctx, db, os.Getenv(state.AMQPEnv))
		}
	}
	return fmt.Errorf("there is no relay %q", name)
}

// process is a relay that runs.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error
}

// start starts a relay as a process of its own.
func (w *world) start(r relay) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), roleEnv+"="+r.name, state.PostgresEnv+"="+w.DatabaseURL, state.AMQPEnv+"="+w.AMQPURL)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stop asks it to stop, and kills it if it does not.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		p.kill()
	}
}
