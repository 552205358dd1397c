// Mutant: who does not get the leader's lock tries again after a pause that doubles, as after an error: the next leader comes half a minute late.
// Breaks: takes-over
// Shown by: veteran
// Mode: full

package followerbackoff

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
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 30*time.Second) {
		var leads bool
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(7)`).Scan(&leads); err != nil || !leads {
				return err
			}
			return lead(ctx, db, conn)
		})
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// lead works until something fails. The lock is held meanwhile.
func lead(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
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
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			return work(ctx, tx, ch, confirms, returns)
		})
		if err != nil {
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

func work(ctx context.Context, tx pgx.Tx, ch *amqp.Channel, confirms <-chan amqp.Confirmation, returns <-chan amqp.Return) error {
	rows, err := tx.Query(ctx, `
		SELECT seq, aggregate_id, message_id::text, type, payload FROM outbox
		WHERE published_at IS NULL ORDER BY seq
		LIMIT 10
		FOR UPDATE SKIP LOCKED`)
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
		if _, err := tx.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
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
