// Mutant: the rows stay open when an event was not delivered, and each time they keep a connection of the pool.
// Breaks: all-work-done
// Shown by: unrouted

package rowsleak

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
	Seq     int64
	ID      string
	Type    string
	Payload []byte
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
	for {
		aggregates, err := pending(ctx, db)
		if err != nil {
			return err
		}
		for _, aggregate := range aggregates {
			rows, err := db.Query(ctx, `
				SELECT seq, message_id::text, type, payload FROM outbox
				WHERE published_at IS NULL AND aggregate_id = $1 ORDER BY seq`, aggregate)
			if err != nil {
				return err
			}
			for rows.Next() {
				var e event
				if err := rows.Scan(&e.Seq, &e.ID, &e.Type, &e.Payload); err != nil {
					return err
				}
				delivered, err := publish(ctx, ch, confirms, returns, e)
				if err != nil {
					return err
				}
				if !delivered {
					break // the next ones have to wait
				}
				if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
					return err
				}
			}
			if err := rows.Err(); err != nil {
				return err
			}
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

func pending(ctx context.Context, db *pgxpool.Pool) ([]string, error) {
	rows, err := db.Query(ctx, `SELECT DISTINCT aggregate_id FROM outbox WHERE published_at IS NULL`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
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
