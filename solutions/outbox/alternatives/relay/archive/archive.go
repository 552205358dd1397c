// Package archive answers outbox/relay by moving published rows into a table of
// its own, in one statement, so that outbox stays small and nothing is forgotten.
package archive

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	page  = 30
	pause = 50 * time.Millisecond
)

type event struct {
	Seq     int64
	ID      string
	Key     string
	Payload []byte
}

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, broker *amqp.Connection) error {
	// One connection for all of it.
	conn, err := db.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("take a connection: %w", err)
	}
	defer conn.Release()
	err = relay(ctx, conn.Conn(), broker)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func relay(ctx context.Context, db *pgx.Conn, broker *amqp.Connection) error {
	if _, err := db.Exec(ctx, `CREATE TABLE IF NOT EXISTS outbox_archive (LIKE outbox)`); err != nil {
		return fmt.Errorf("make the archive: %w", err)
	}
	ch, err := broker.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	defer ch.Close()
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirms: %w", err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, page))
	var last int64 // where the next page begins
	for {
		events, err := next(ctx, db, last)
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		var moved []int64
		if len(events) > 0 {
			if moved, err = publish(ctx, ch, returns, events); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
			last = events[len(events)-1].Seq
		}
		if len(moved) > 0 {
			if _, err := db.Exec(ctx, `
				WITH moved AS (DELETE FROM outbox WHERE seq = ANY($1) RETURNING *)
				INSERT INTO outbox_archive
				SELECT seq, message_id, aggregate_id, type, payload, created_at, now() FROM moved`, moved); err != nil {
				return fmt.Errorf("move the published events: %w", err)
			}
		}
		if len(events) == page {
			continue
		}
		// The end of the table. Begin at its start again: what could not be
		// delivered is there, and what was committed late.
		last = 0
		if len(moved) > 0 {
			continue
		}
		if ch.IsClosed() {
			return fmt.Errorf("the channel was closed: %w", amqp.ErrClosed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// next returns the first events of their aggregates, beginning after a seq.
func next(ctx context.Context, db *pgx.Conn, last int64) ([]event, error) {
	rows, err := db.Query(ctx, `
		SELECT seq, message_id::text, type, payload FROM (
			SELECT *, row_number() OVER (PARTITION BY aggregate_id ORDER BY seq) AS place
			FROM outbox WHERE published_at IS NULL) AS o
		WHERE place = 1 AND seq > $1
		ORDER BY seq
		LIMIT $2`, last, page)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[event])
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
			return nil, err
		}
	}
	for _, confirm := range confirms {
		select {
		case <-confirm.Done():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	returned := map[string]bool{}
	for len(returns) > 0 {
		returned[(<-returns).MessageId] = true
	}
	var moved []int64
	for i, e := range events {
		if confirms[i].Acked() && !returned[e.ID] {
			moved = append(moved, e.Seq)
		}
	}
	return moved, nil
}
