// Mutant: the leader has a whole batch on its way at once, so the broker may refuse an event and take the next one of the same aggregate.
// Breaks: order-per-key
// Shown by: nack

package pipelined

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	page  = 50
	pause = 50 * time.Millisecond
)

type event struct {
	Seq     int64
	ID      string
	Type    string
	Payload []byte
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
	returns := ch.NotifyReturn(make(chan amqp.Return, page))
	for {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			return work(ctx, tx, ch, returns)
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

func work(ctx context.Context, tx pgx.Tx, ch *amqp.Channel, returns <-chan amqp.Return) error {
	var mine bool
	if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(1)`).Scan(&mine); err != nil || !mine {
		return err
	}
	rows, err := tx.Query(ctx, `
		SELECT seq, message_id::text, type, payload FROM outbox
		WHERE published_at IS NULL ORDER BY seq LIMIT $1`, page)
	if err != nil {
		return err
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return err
	}
	confirms := map[string]*amqp.DeferredConfirmation{}
	for _, e := range events {
		confirms[e.ID], err = ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.Type, true, false, amqp.Publishing{
			MessageId:    e.ID,
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         e.Payload,
		})
		if err != nil {
			return err
		}
	}
	for _, confirm := range confirms {
		if _, err := confirm.WaitContext(ctx); err != nil {
			return err
		}
	}
	for len(returns) > 0 {
		delete(confirms, (<-returns).MessageId)
	}
	var delivered []int64
	for _, e := range events {
		if confirm := confirms[e.ID]; confirm != nil && confirm.Acked() {
			delivered = append(delivered, e.Seq)
		}
	}
	_, err = tx.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, delivered)
	return err
}
