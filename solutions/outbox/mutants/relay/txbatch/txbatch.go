// Mutant: publishes a batch with several events per aggregate in one AMQP transaction, and keeps everything from the first returned event of an aggregate on; but a transaction does not hold back the ones behind it.
// Breaks: order-per-key
// Shown by: partly

package txbatch

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := run(ctx, db, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

type event struct {
	Seq       int64
	ID        string
	Aggregate string
	Type      string
	Payload   string
}

func message(e event) amqp.Publishing {
	return amqp.Publishing{
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		MessageId:    e.ID,
		Body:         []byte(e.Payload),
	}
}

func run(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Tx(); err != nil {
		return err
	}
	gone := ch.NotifyClose(make(chan *amqp.Error, 1))
	returns := ch.NotifyReturn(make(chan amqp.Return, 256))
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	waiting := map[string]time.Time{}
	for {
		events, err := heads(ctx, db, waiting)
		if err != nil {
			return err
		}
		if len(events) > 0 {
			if err := publish(ctx, db, ch, returns, events, waiting); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-gone:
			return fmt.Errorf("channel closed: %v", err)
		case <-tick.C:
		}
	}
}

// heads reads the first unpublished events, without the aggregates which are
// waiting for their next attempt.
func heads(ctx context.Context, db *pgxpool.Pool, waiting map[string]time.Time) ([]event, error) {
	skip := []string{}
	for aggregate, until := range waiting {
		if time.Now().Before(until) {
			skip = append(skip, aggregate)
		} else {
			delete(waiting, aggregate)
		}
	}
	rows, err := db.Query(ctx, `
		SELECT seq, message_id::text, aggregate_id, type, payload::text
		FROM outbox WHERE published_at IS NULL AND aggregate_id <> ALL($1)
		ORDER BY seq LIMIT 100`, skip)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[event])
}

func publish(ctx context.Context, db *pgxpool.Pool, ch *amqp.Channel, returns <-chan amqp.Return, events []event, waiting map[string]time.Time) error {
	for _, e := range events {
		if err := ch.PublishWithContext(ctx, "events", e.Type, true, false, message(e)); err != nil {
			return err
		}
	}
	if err := ch.TxCommit(); err != nil {
		return err
	}
	returned := map[string]bool{}
	for more := true; more; {
		select {
		case r, ok := <-returns:
			if !ok {
				return amqp.ErrClosed
			}
			returned[r.MessageId] = true
		default:
			more = false
		}
	}
	var done []int64
	for _, e := range events {
		_, kept := waiting[e.Aggregate]
		if kept || returned[e.ID] {
			waiting[e.Aggregate] = time.Now().Add(50 * time.Millisecond)
			continue
		}
		done = append(done, e.Seq)
	}
	if len(done) == 0 {
		return nil
	}
	_, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, done)
	return err
}
