// Package exclusivequeue: the leader owns an exclusive queue of RabbitMQ on the same connection that it publishes on, so that losing the queue and losing the way to publish are one event.
package exclusivequeue

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const leaderQueue = "answer.leader"

func Relays(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := run(ctx, db, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func run(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	for ctx.Err() == nil {
		led, err := tryLead(conn)
		if err != nil {
			return err
		}
		if led {
			return lead(ctx, db, conn)
		}
		pause(ctx, 200*time.Millisecond)
	}
	return nil
}

func tryLead(conn *amqp.Connection) (bool, error) {
	ch, err := conn.Channel()
	if err != nil {
		return false, err
	}
	_, err = ch.QueueDeclare(leaderQueue, false, false, true, false, nil)
	var refused *amqp.Error
	if errors.As(err, &refused) && refused.Code == amqp.ResourceLocked {
		return false, nil // the server has closed the channel
	}
	return err == nil, err
}

func lead(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	pub, err := newPublisher(conn)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if pub.ch.IsClosed() {
			return amqp.ErrClosed
		}
		n, err := step(ctx, db, pub)
		if err != nil {
			return err
		}
		if n == 0 {
			pause(ctx, pollInterval)
		}
	}
	return nil
}

func step(ctx context.Context, db *pgxpool.Pool, pub *publisher) (int, error) {
	batch, err := readBatch(ctx, db)
	if err != nil || len(batch) == 0 {
		return 0, err
	}
	delivered, err := pub.sendWaves(ctx, batch)
	if err != nil || len(delivered) == 0 {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	_, err = db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, seqs(delivered))
	return len(delivered), err
}

func readBatch(ctx context.Context, db *pgxpool.Pool) ([]event, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return collect(db.Query(ctx, `
		SELECT seq, message_id, aggregate_id, type, payload FROM (			SELECT seq, message_id::text, aggregate_id, type, payload::text,			       row_number() OVER (PARTITION BY aggregate_id ORDER BY seq) AS n			FROM outbox WHERE published_at IS NULL		) h WHERE n <= 8 ORDER BY n, random() LIMIT 100`))
}

const (
	pollInterval   = 20 * time.Millisecond
	confirmTimeout = 1500 * time.Millisecond
	queryTimeout   = 2 * time.Second
)

type event struct {
	Seq       int64
	MessageID string
	Aggregate string
	Type      string
	Payload   string
}

func collect(rows pgx.Rows, err error) ([]event, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[event])
}

func seqs(events []event) []int64 {
	out := make([]int64, len(events))
	for i, e := range events {
		out[i] = e.Seq
	}
	return out
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// publisher publishes on a channel of its own, and is used by one goroutine.
type publisher struct {
	ch      *amqp.Channel
	returns chan amqp.Return
}

func newPublisher(conn *amqp.Connection) (*publisher, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		return nil, err
	}
	return &publisher{ch: ch, returns: ch.NotifyReturn(make(chan amqp.Return, 256))}, nil
}

// send publishes the events without waiting in between, then waits for all
// confirmations, and returns the events that were delivered.
func (p *publisher) send(ctx context.Context, events ...event) ([]event, error) {
	confirms := make([]*amqp.DeferredConfirmation, len(events))
	for i, e := range events {
		c, err := p.ch.PublishWithDeferredConfirm("events", e.Type, true, false, amqp.Publishing{
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			MessageId:    e.MessageID,
			Body:         []byte(e.Payload),
		})
		if err != nil {
			return nil, err
		}
		confirms[i] = c
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	acked := make(map[string]bool, len(events))
	for i, c := range confirms {
		ok, err := c.WaitContext(ctx)
		if err != nil {
			return nil, err
		}
		acked[events[i].MessageID] = ok
	}
	// A message that comes back comes before its confirmation.
	for done := false; !done; {
		select {
		case r, ok := <-p.returns:
			if !ok {
				return nil, amqp.ErrClosed
			}
			acked[r.MessageId] = false
		default:
			done = true
		}
	}
	if p.ch.IsClosed() {
		return nil, amqp.ErrClosed
	}
	var delivered []event
	for _, e := range events {
		if acked[e.MessageID] {
			delivered = append(delivered, e)
		}
	}
	return delivered, nil
}

// sendWaves publishes the first event of each aggregate, then the second, and so
// on. An event that is not delivered holds back the later ones of its aggregate.
// The events must be in an order that has those of one aggregate by seq.
func (p *publisher) sendWaves(ctx context.Context, events []event) ([]event, error) {
	var delivered []event
	for start := time.Now(); len(events) > 0 && time.Since(start) < 500*time.Millisecond; {
		var wave, rest []event
		inWave := map[string]bool{}
		for _, e := range events {
			if inWave[e.Aggregate] {
				rest = append(rest, e)
				continue
			}
			inWave[e.Aggregate] = true
			wave = append(wave, e)
		}
		ok, err := p.send(ctx, wave...)
		if err != nil {
			return nil, err
		}
		delivered = append(delivered, ok...)
		on := map[string]bool{}
		for _, e := range ok {
			on[e.Aggregate] = true
		}
		events = nil
		for _, e := range rest {
			if on[e.Aggregate] {
				events = append(events, e)
			}
		}
	}
	return delivered, nil
}
