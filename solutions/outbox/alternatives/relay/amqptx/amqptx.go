// Package amqptx answers outbox/relay with the broker's transactions in place of
// its confirms: tx.commit is answered when the broker has taken charge of what
// was published since the last one. Slower than confirms, and as safe. A broker
// that refuses an event says so by closing the channel, and so this ends and is
// started again.
package amqptx

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	page  = 20
	pause = 50 * time.Millisecond
)

type event struct {
	Seq     int64
	ID      string
	Key     string
	Payload []byte
}

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	failed := make(chan error, 1)
	// The library's TxCommit knows no context, so it must not hold up the stop.
	go func() { failed <- relay(ctx, db, conn) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

func relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	defer ch.Close()
	if err := ch.Tx(); err != nil {
		return fmt.Errorf("ask for transactions: %w", err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	for {
		rows, err := db.Query(ctx, `
			SELECT seq, message_id::text, type, payload FROM outbox
			WHERE seq IN (
				SELECT min(seq) FROM outbox WHERE published_at IS NULL
				GROUP BY aggregate_id ORDER BY random() LIMIT $1)`, page)
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		moved := false
		for _, e := range events {
			delivered, err := publish(ctx, ch, returns, e)
			if err != nil {
				return fmt.Errorf("publish event %d: %w", e.Seq, err)
			}
			if !delivered {
				continue
			}
			if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
				return fmt.Errorf("mark event %d: %w", e.Seq, err)
			}
			moved = true
		}
		if moved {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-closed:
			return fmt.Errorf("the channel was closed: %v", err)
		case <-time.After(pause):
		}
	}
}

// publish sends an event in a transaction of the broker and says whether it
// reached a queue.
func publish(ctx context.Context, ch *amqp.Channel, returns <-chan amqp.Return, e event) (bool, error) {
	if err := ch.PublishWithContext(ctx, "events", e.Key, true, false, amqp.Publishing{
		MessageId:    e.ID,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         e.Payload,
	}); err != nil {
		return false, err
	}
	if err := ch.TxCommit(); err != nil {
		return false, err
	}
	select {
	case <-returns: // it comes before the answer to the commit
		return false, nil
	default:
		return true, nil
	}
}
