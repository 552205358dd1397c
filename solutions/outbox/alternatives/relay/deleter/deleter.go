// Package deleter answers outbox/relay without a mark: the row is deleted before
// its event is published, in a transaction that is committed only when the broker
// has confirmed. Until then the delete is a promise that a crash takes back.
package deleter

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

	var blocked []string // aggregates that wait for the next round
	for {
		aggregate, delivered, err := relayOne(ctx, db, ch, returns, blocked)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, pgx.ErrNoRows):
			blocked = nil
			select {
			case <-ctx.Done():
				return nil
			case err := <-closed:
				return fmt.Errorf("the channel was closed: %v", err)
			case <-time.After(pause):
			}
		case err != nil:
			return err
		case !delivered:
			blocked = append(blocked, aggregate)
		}
	}
}

// relayOne moves the oldest event whose aggregate is not blocked from the table
// to the broker.
func relayOne(ctx context.Context, db *pgxpool.Pool, ch *amqp.Channel, returns <-chan amqp.Return, blocked []string) (aggregate string, delivered bool, err error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return "", false, fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback(ctx) // does nothing after a commit

	var id, key string
	var body []byte
	err = tx.QueryRow(ctx, `
		DELETE FROM outbox WHERE seq = (
			SELECT seq FROM outbox
			WHERE published_at IS NULL AND NOT (aggregate_id = ANY(coalesce($1, '{}'::text[])))
			ORDER BY seq
			LIMIT 1)
		RETURNING aggregate_id, message_id::text, type, payload`, blocked).Scan(&aggregate, &id, &key, &body)
	if err != nil {
		return "", false, fmt.Errorf("take the next event: %w", err)
	}
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", key, true, false, amqp.Publishing{
		MessageId:    id,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         body,
	})
	if err != nil {
		return "", false, fmt.Errorf("publish event %s: %w", id, err)
	}
	if delivered, err = confirm.WaitContext(ctx); err != nil {
		return "", false, fmt.Errorf("wait for the confirm of event %s: %w", id, err)
	}
	select {
	case <-returns: // it comes before the confirm
		delivered = false
	default:
	}
	if !delivered {
		return aggregate, false, nil
	}
	if err := tx.Commit(ctx); err != nil {
		return "", false, fmt.Errorf("delete event %s: %w", id, err)
	}
	return aggregate, true, nil
}
