// Mutant: the row is deleted as it is read, as one takes a job from a queue, and its event published afterwards.
// Breaks: no-lost-event
// Shown by: kill

package pop

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	for {
		var id, aggregate, key string
		var payload []byte
		err := db.QueryRow(ctx, `
			DELETE FROM outbox WHERE seq = (
				SELECT seq FROM outbox WHERE published_at IS NULL ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED)
			RETURNING message_id::text, aggregate_id, type, payload`).Scan(&id, &aggregate, &key, &payload)
		if errors.Is(err, pgx.ErrNoRows) {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		for delivered := false; err == nil && !delivered; {
			delivered, err = publish(ctx, ch, returns, id, key, payload)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("event %s of %s: %w", id, aggregate, err)
		}
	}
}

func publish(ctx context.Context, ch *amqp.Channel, returns <-chan amqp.Return, id, key string, payload []byte) (bool, error) {
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", key, true, false, amqp.Publishing{
		MessageId:    id,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         payload,
	})
	if err != nil {
		return false, err
	}
	acked, err := confirm.WaitContext(ctx)
	if len(returns) > 0 {
		<-returns
		acked = false
	}
	return acked, err
}
