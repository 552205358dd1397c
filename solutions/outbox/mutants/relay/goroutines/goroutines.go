// Mutant: every event has a goroutine of its own, and nothing says which one runs first.
// Breaks: order-per-key
// Shown by: none

package goroutines

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

type event struct {
	Seq     int64
	ID      string
	Type    string
	Payload []byte
}

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	for {
		err := round(ctx, db, conn)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func round(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	if conn.IsClosed() {
		return amqp.ErrClosed
	}
	rows, err := db.Query(ctx, `
		SELECT seq, message_id::text, type, payload FROM outbox
		WHERE published_at IS NULL ORDER BY seq LIMIT 50`)
	if err != nil {
		return err
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, e := range events {
		group.Go(func() error { return relayOne(ctx, db, conn, e) })
	}
	return group.Wait()
}

func relayOne(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection, e event) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	if err := ch.Confirm(false); err != nil {
		return err
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.Type, true, false, amqp.Publishing{
		MessageId:    e.ID,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         e.Payload,
	})
	if err != nil {
		return err
	}
	acked, err := confirm.WaitContext(ctx)
	if err != nil {
		return err
	}
	if !acked {
		return errors.New("not confirmed")
	}
	if len(returns) > 0 {
		return nil // later
	}
	_, err = db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq)
	return err
}
