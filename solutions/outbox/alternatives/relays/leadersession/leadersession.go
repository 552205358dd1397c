// Package leadersession answers outbox/relays with one process at work and the
// others in waiting. The right to work is an advisory lock that belongs to a
// session, and all work goes through that session: when it breaks, the lock and
// the means to work are gone together.
package leadersession

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	lock  = 271828
	page  = 50
	pause = 50 * time.Millisecond
)

type event struct {
	Seq       int64
	Aggregate string
	ID        string
	Key       string
	Payload   []byte
}

// Relays publishes every committed row of outbox until ctx ends.
func Relays(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := relay(ctx, db, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func relay(ctx context.Context, pool *pgxpool.Pool, broker *amqp.Connection) error {
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("take a connection: %w", err)
	}
	// It must not go back to the pool, where the lock would live on in it.
	conn := pooled.Hijack()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	// Wait for the lock in the server, which hands it on the moment its holder
	// is gone.
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, lock); err != nil {
		return fmt.Errorf("wait for the lock: %w", err)
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
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	after := ""
	for {
		events, err := heads(ctx, conn, after)
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		after = ""
		if len(events) == page {
			after = events[page-1].Aggregate
		}
		delivered, err := publish(ctx, ch, returns, events)
		if err != nil {
			return err
		}
		if len(delivered) > 0 {
			if _, err := conn.Exec(ctx, `DELETE FROM outbox WHERE seq = ANY($1)`, delivered); err != nil {
				return fmt.Errorf("delete the published events: %w", err)
			}
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

// heads returns the first event of each of the aggregates after one.
func heads(ctx context.Context, conn *pgx.Conn, after string) ([]event, error) {
	rows, err := conn.Query(ctx, `
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
