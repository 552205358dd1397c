// Package onebyone answers outbox/relay with one event at a time: read it,
// publish it, wait for its confirm, mark it. An event that cannot be delivered
// stands before those of its own aggregate only.
package onebyone

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const pause = 50 * time.Millisecond

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
		return fmt.Errorf("open a channel: %w", err)
	}
	defer ch.Close()
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirms: %w", err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))

	blocked := []string{} // aggregates that wait for the next round
	for {
		var seq int64
		var aggregate, key string
		msg := amqp.Publishing{ContentType: "application/json", DeliveryMode: amqp.Persistent}
		err := db.QueryRow(ctx, `
			SELECT seq, aggregate_id, message_id::text, type, payload
			FROM outbox
			WHERE published_at IS NULL AND aggregate_id <> ALL($1)
			ORDER BY seq
			LIMIT 1`, blocked).Scan(&seq, &aggregate, &msg.MessageId, &key, &msg.Body)
		if errors.Is(err, pgx.ErrNoRows) {
			blocked = blocked[:0]
			select {
			case <-ctx.Done():
				return nil
			case err := <-closed:
				return fmt.Errorf("the channel was closed: %v", err)
			case <-time.After(pause):
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("read the next event: %w", err)
		}

		confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", key, true, false, msg)
		if err != nil {
			return fmt.Errorf("publish event %d: %w", seq, err)
		}
		delivered, err := confirm.WaitContext(ctx)
		if err != nil {
			return fmt.Errorf("wait for the confirm of event %d: %w", seq, err)
		}
		select {
		case <-returns: // it comes before the confirm
			delivered = false
		default:
		}
		if !delivered {
			blocked = append(blocked, aggregate)
			continue
		}
		if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, seq); err != nil {
			return fmt.Errorf("mark event %d: %w", seq, err)
		}
	}
}
