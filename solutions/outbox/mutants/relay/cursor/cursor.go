// Mutant: only rows with a seq above the last one seen are read, so a row that is committed late is never seen.
// Breaks: no-lost-event
// Shown by: late-commit

package cursor

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const pause = 50 * time.Millisecond

type event struct {
	Seq       int64
	Aggregate string
	ID        string
	Type      string
	Payload   []byte
}

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := relay(ctx, db, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, 1))
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	var last int64
	for {
		events, err := pending(ctx, db, last)
		if err != nil {
			return err
		}
		for _, e := range events {
			delivered, err := publish(ctx, ch, confirms, returns, e)
			if err != nil {
				return err
			}
			if !delivered {
				break // again from here
			}
			if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
				return err
			}
			last = e.Seq
		}
		if ch.IsClosed() {
			return amqp.ErrClosed
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func pending(ctx context.Context, db *pgxpool.Pool, last int64) ([]event, error) {
	rows, err := db.Query(ctx, `
		SELECT seq, aggregate_id, message_id::text, type, payload FROM outbox
		WHERE seq > $1 AND published_at IS NULL ORDER BY seq`, last)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[event])
}

func publish(ctx context.Context, ch *amqp.Channel, confirms <-chan amqp.Confirmation, returns <-chan amqp.Return, e event) (bool, error) {
	err := ch.PublishWithContext(ctx, "events", e.Type, true, false, amqp.Publishing{
		MessageId:    e.ID,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         e.Payload,
	})
	if err != nil {
		return false, err
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case c, ok := <-confirms:
		if !ok {
			return false, errors.New("the channel was closed")
		}
		select {
		case <-returns:
			return false, nil
		default:
			return c.Ack, nil
		}
	}
}
