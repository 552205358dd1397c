// Package lockfree answers outbox/relays without any lock. Every process
// publishes the first unpublished event of every aggregate. So the same event may
// go out three times, which the contract allows; but nobody sends an event before
// somebody has had the confirm of the one before it, and that alone keeps the
// order.
package lockfree

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const page = 50

type event struct {
	Seq     int64
	ID      string
	Key     string
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
		return fmt.Errorf("open a channel: %w", err)
	}
	defer ch.Close()
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirms: %w", err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, page))
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
		delivered, err := publish(ctx, ch, returns, events)
		if err != nil {
			return err
		}
		if len(delivered) > 0 {
			if _, err := db.Exec(ctx, `
				UPDATE outbox SET published_at = now()
				WHERE published_at IS NULL AND seq IN (
					SELECT seq FROM outbox WHERE seq = ANY($1) ORDER BY seq FOR UPDATE)`, delivered); err != nil {
				return fmt.Errorf("mark the published events: %w", err)
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-closed:
			return fmt.Errorf("the channel was closed: %v", err)
		case <-time.After(20*time.Millisecond + rand.N(60*time.Millisecond)):
		}
	}
}

// publish sends the events and returns the seq of those that reached a queue.
func publish(ctx context.Context, ch *amqp.Channel, returns <-chan amqp.Return, events []event) ([]int64, error) {
	confirms := make([]*amqp.DeferredConfirmation, len(events))
	var err error
	for i, e := range events {
		confirms[i], err = ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.Key, true, false, amqp.Publishing{
			MessageId:    e.ID,
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         e.Payload,
		})
		if err != nil {
			return nil, fmt.Errorf("publish event %s: %w", e.ID, err)
		}
	}
	acked := make([]bool, len(events))
	for i, confirm := range confirms {
		if acked[i], err = confirm.WaitContext(ctx); err != nil {
			return nil, fmt.Errorf("wait for the confirm of event %s: %w", events[i].ID, err)
		}
	}
	returned := map[string]bool{} // each return came before its confirm
	for len(returns) > 0 {
		returned[(<-returns).MessageId] = true
	}
	var delivered []int64
	for i, e := range events {
		if acked[i] && !returned[e.ID] {
			delivered = append(delivered, e.Seq)
		}
	}
	return delivered, nil
}
