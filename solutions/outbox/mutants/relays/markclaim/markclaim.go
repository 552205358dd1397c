// Mutant: published_at is the claim: whoever sets it publishes the event, and takes it back after an error, if alive.
// Breaks: no-lost-event
// Shown by: kill

package markclaim

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
		if err := work(ctx, db, ch, confirms, returns); err != nil {
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

func work(ctx context.Context, db *pgxpool.Pool, ch *amqp.Channel, confirms <-chan amqp.Confirmation, returns <-chan amqp.Return) error {
	rows, err := db.Query(ctx, `
		WITH claimed AS (
			UPDATE outbox SET published_at = now() WHERE seq IN (
				SELECT seq FROM outbox WHERE published_at IS NULL ORDER BY seq LIMIT 10 FOR UPDATE SKIP LOCKED)
			RETURNING *
		)
		SELECT seq, aggregate_id, message_id::text, type, payload FROM claimed ORDER BY seq`)
	if err != nil {
		return err
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return err
	}
	failed := map[string]bool{} // aggregates that have to wait
	for _, e := range events {
		delivered := false
		if !failed[e.Aggregate] {
			delivered, err = publish(ctx, ch, confirms, returns, e)
		}
		if !delivered {
			failed[e.Aggregate] = true
			if _, undoErr := db.Exec(context.WithoutCancel(ctx), `UPDATE outbox SET published_at = NULL WHERE seq = $1`, e.Seq); undoErr != nil {
				return undoErr
			}
		}
	}
	return err
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
	c, ok := <-confirms
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
