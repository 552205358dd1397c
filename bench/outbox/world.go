package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/servertest"
)

// world is a database with both kinds of outbox and a virtual host with one
// durable queue.
type world struct {
	*servertest.Servers
	ch *amqp.Channel
}

func newWorld(ctx context.Context) (*world, error) {
	s, err := servertest.Open(ctx)
	if err != nil {
		return nil, err
	}
	w := &world{Servers: s}
	if w.ch, err = s.Conn.Channel(); err == nil {
		err = w.setUp(ctx)
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return w, nil
}

func (w *world) setUp(ctx context.Context) error {
	for _, b := range []box{ours{}, theirs{}} {
		if err := b.prepare(ctx, w.DB); err != nil {
			return err
		}
	}
	if err := w.ch.ExchangeDeclare("events", "topic", true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := w.ch.QueueDeclare("q", true, false, false, false, nil); err != nil {
		return err
	}
	return w.bind()
}

func (w *world) bind() error   { return w.ch.QueueBind("q", "#", "events", false, nil) }
func (w *world) unbind() error { return w.ch.QueueUnbind("q", "#", "events", nil) }

// depth is how many messages are in the queue.
func (w *world) depth() (int, error) {
	q, err := w.ch.QueueDeclarePassive("q", true, false, false, false, nil)
	return q.Messages, err
}

// add commits events in transactions of so many.
func (w *world) add(ctx context.Context, r relay, events []event, each int) error {
	return w.inTx(ctx, events, each, func(tx pgx.Tx, some []event) error { return r.outbox.add(ctx, tx, some) })
}

func (w *world) inTx(ctx context.Context, events []event, each int, f func(pgx.Tx, []event) error) error {
	for len(events) > 0 {
		some := events[:min(each, len(events))]
		events = events[len(some):]
		if err := pgx.BeginFunc(ctx, w.DB, func(tx pgx.Tx) error { return f(tx, some) }); err != nil {
			return err
		}
	}
	return nil
}

// makeEvents returns n events of so many aggregates in turn, each with a payload
// of about size bytes.
func makeEvents(n, aggregates, size int) []event {
	events := make([]event, n)
	for i := range events {
		events[i] = makeEvent(i%aggregates, i/aggregates, size)
	}
	return events
}

func makeEvent(aggregate, n, size int) event {
	e := event{id: uuid.Must(uuid.NewV7()).String(), aggregate: fmt.Sprintf("order-%05d", aggregate), n: n}
	// Random, so that the database cannot compress it.
	pad := make([]byte, max(0, size-50)/2)
	for i := range pad {
		pad[i] = byte(rand.Uint32())
	}
	e.payload = fmt.Appendf(nil, `{"n": %d, "pad": "%s", "order": "%s"}`, n, hex.EncodeToString(pad), e.aggregate)
	return e
}

// arrival is what a consumer sees of a message.
type arrival struct {
	id, aggregate string
	n             int
	at            time.Time
}

func readArrival(d amqp.Delivery) (a arrival, err error) {
	a = arrival{id: d.MessageId, at: time.Now()}
	if id, ok := d.Headers["_watermill_message_uuid"].(string); ok {
		a.id = id
	}
	a.aggregate, _ = d.Headers["aggregate-id"].(string)
	var payload struct{ N int }
	err = json.Unmarshal(d.Body, &payload)
	a.n = payload.N
	return a, err
}

func mustUUID(s string) uuid.UUID      { return uuid.MustParse(s) }
func rawJSON(b []byte) json.RawMessage { return b }
