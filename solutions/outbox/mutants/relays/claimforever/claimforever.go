// Mutant: an aggregate is claimed until its claim is given back, and a dead process gives nothing back.
// Breaks: all-work-done
// Shown by: kill

package claimforever

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
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
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(2)`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS relay_claims (aggregate_id text PRIMARY KEY, holder uuid NOT NULL)`)
		return err
	})
	if err != nil {
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
	me := uuid.New()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = db.Exec(ctx, `DELETE FROM relay_claims WHERE holder = $1`, me)
	}()
	for {
		if err := work(ctx, db, ch, confirms, returns, me); err != nil {
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

func work(ctx context.Context, db *pgxpool.Pool, ch *amqp.Channel, confirms <-chan amqp.Confirmation, returns <-chan amqp.Return, me uuid.UUID) error {
	if _, err := db.Exec(ctx, `
		INSERT INTO relay_claims SELECT DISTINCT aggregate_id, $1::uuid FROM outbox WHERE published_at IS NULL
		ON CONFLICT DO NOTHING`, me); err != nil {
		return err
	}
	rows, err := db.Query(ctx, `
		SELECT seq, aggregate_id, message_id::text, type, payload FROM outbox
		WHERE published_at IS NULL AND aggregate_id IN (SELECT aggregate_id FROM relay_claims WHERE holder = $1)
		ORDER BY seq`, me)
	if err != nil {
		return err
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return err
	}
	failed := map[string]bool{} // aggregates that have to wait
	for _, e := range events {
		if failed[e.Aggregate] {
			continue
		}
		delivered, err := publish(ctx, ch, confirms, returns, e)
		if err != nil {
			return err
		}
		if !delivered {
			failed[e.Aggregate] = true
			continue
		}
		if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
			return err
		}
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
