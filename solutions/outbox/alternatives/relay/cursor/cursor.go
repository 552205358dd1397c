// Package cursor answers outbox/relay with a cursor in the database: it fetches
// one row at a time, and marks the row the cursor stands on.
package cursor

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
	p := publisher{
		ch:       ch,
		confirms: ch.NotifyPublish(make(chan amqp.Confirmation, 1)),
		returns:  ch.NotifyReturn(make(chan amqp.Return, 1)),
	}
	for {
		if err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return walk(ctx, tx, p) }); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-p.confirms:
			if !open {
				return errors.New("the channel was closed")
			}
		case <-time.After(pause):
		}
	}
}

// walk takes the cursor over all unpublished events.
func walk(ctx context.Context, tx pgx.Tx, p publisher) error {
	_, err := tx.Exec(ctx, `
		DECLARE pending CURSOR FOR
		SELECT aggregate_id, message_id::text, type, payload FROM outbox
		WHERE published_at IS NULL ORDER BY seq FOR UPDATE`)
	if err != nil {
		return fmt.Errorf("declare the cursor: %w", err)
	}
	stopped := map[string]bool{} // aggregates whose next event could not be delivered
	for {
		var aggregate, id, key string
		var payload []byte
		err := tx.QueryRow(ctx, `FETCH NEXT FROM pending`).Scan(&aggregate, &id, &key, &payload)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("fetch the next event: %w", err)
		}
		if stopped[aggregate] {
			continue
		}
		delivered, err := p.publish(ctx, id, key, payload)
		if err != nil {
			return fmt.Errorf("publish event %s: %w", id, err)
		}
		if !delivered {
			stopped[aggregate] = true
			continue
		}
		if _, err := tx.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE CURRENT OF pending`); err != nil {
			return fmt.Errorf("mark event %s: %w", id, err)
		}
	}
}

type publisher struct {
	ch       *amqp.Channel
	confirms <-chan amqp.Confirmation
	returns  <-chan amqp.Return
}

// publish sends one event and says whether it reached a queue.
func (p publisher) publish(ctx context.Context, id, key string, payload []byte) (bool, error) {
	if err := p.ch.PublishWithContext(ctx, "events", key, true, false, amqp.Publishing{
		MessageId:    id,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         payload,
	}); err != nil {
		return false, err
	}
	returned := false
	returns := p.returns
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case _, open := <-returns:
			returned = open
			if !open {
				returns = nil // the closed confirms say the rest
			}
		case c, open := <-p.confirms:
			if !open {
				return false, errors.New("the channel was closed before the confirm")
			}
			// Both may have been ready, and select takes any.
			if len(p.returns) > 0 {
				<-p.returns
				returned = true
			}
			return c.Ack && !returned, nil
		}
	}
}
