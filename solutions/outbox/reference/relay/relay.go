// Package relay is the reference answer to outbox/relay.
package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	page  = 100                   // most events on their way at once
	pause = 50 * time.Millisecond // between looks at a table with nothing to publish
)

type event struct {
	Seq       int64
	Aggregate string
	ID        string
	Type      string
	Payload   []byte
}

// Relay publishes every committed row of outbox until ctx ends.
//
// Whatever goes wrong, it returns the error and is started again. That is safe
// because a row is marked only after the broker has confirmed its event: the
// next start publishes again what may or may not have arrived.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := relay(ctx, db, conn)
	if ctx.Err() != nil {
		return nil // told to stop: that is no failure
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
	// Both have room for all they can be sent, so that nobody waits for us.
	returns := ch.NotifyReturn(make(chan amqp.Return, page))
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))

	after := "" // the last aggregate looked at
	for {
		events, err := heads(ctx, db, after)
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		// The next page goes on behind this one, the one after a short page from
		// the start: events that nobody can take never stand before the others.
		after = ""
		if len(events) == page {
			after = events[page-1].Aggregate
		}
		delivered, err := publish(ctx, ch, returns, events)
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if len(delivered) > 0 {
			if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, delivered); err != nil {
				return fmt.Errorf("mark the published events: %w", err)
			}
			continue // their successors can go now
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

// heads returns the first unpublished event of each of the next aggregates.
//
// Only the first: were two events of one aggregate on their way together, the
// broker could refuse the first and take the second. And there is no "seq > the
// last one I saw" here: a row with a lower seq may be committed at any time.
func heads(ctx context.Context, db *pgxpool.Pool, after string) ([]event, error) {
	rows, err := db.Query(ctx, `
		SELECT DISTINCT ON (aggregate_id) seq, aggregate_id, message_id::text, type, payload
		FROM outbox
		WHERE published_at IS NULL AND aggregate_id > $1
		ORDER BY aggregate_id, seq
		LIMIT $2`, after, page)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[event])
}

// publish sends the events and returns the seq of those that reached a queue.
func publish(ctx context.Context, ch *amqp.Channel, returns <-chan amqp.Return, events []event) ([]int64, error) {
	var confirms []*amqp.DeferredConfirmation
	for _, e := range events {
		// Mandatory: without it the broker confirms what it has no queue for, and
		// throws it away.
		confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.Type, true, false, amqp.Publishing{
			MessageId:    e.ID,
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         e.Payload,
		})
		if err != nil {
			return nil, err
		}
		confirms = append(confirms, confirm)
	}
	acked := make([]bool, len(events))
	for i, confirm := range confirms {
		var err error
		// False is a nack, or a channel that closed before the answer came.
		if acked[i], err = confirm.WaitContext(ctx); err != nil {
			return nil, err
		}
	}
	// The broker returns a message before it confirms it, so by now they are here.
	returned := map[string]bool{}
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
