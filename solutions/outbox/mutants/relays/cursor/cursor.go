// Mutant: the leader reads only above the last seq it has seen, so a row that is committed late is never seen.
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

// Relays publishes every committed row of outbox until ctx ends.
func Relays(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := relay(ctx, db, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func relay(ctx context.Context, pool *pgxpool.Pool, conn *amqp.Connection) error {
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	db := pooled.Hijack() // the lock goes with it
	defer db.Close(context.WithoutCancel(ctx))
	if _, err := db.Exec(ctx, `SELECT pg_advisory_lock(1)`); err != nil {
		return err
	}
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
		if err := work(ctx, db, ch, confirms, returns, &last); err != nil {
			return err
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

func work(ctx context.Context, db *pgx.Conn, ch *amqp.Channel, confirms <-chan amqp.Confirmation, returns <-chan amqp.Return, last *int64) error {
	rows, err := db.Query(ctx, `
		SELECT seq, aggregate_id, message_id::text, type, payload FROM outbox
		WHERE published_at IS NULL AND seq > $1 ORDER BY seq`, *last)
	if err != nil {
		return err
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return err
	}
	for _, e := range events {
		delivered, err := publish(ctx, ch, confirms, returns, e)
		if err != nil {
			return err
		}
		if !delivered {
			return nil // again from here
		}
		if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
			return err
		}
		*last = e.Seq
	}
	return nil
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
