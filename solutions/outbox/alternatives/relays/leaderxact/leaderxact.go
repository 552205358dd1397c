// Package leaderxact answers outbox/relays with one process at work and the
// others in waiting. The right to work is an advisory lock that belongs to the
// transaction of the work itself, so it cannot be lost without losing the work.
package leaderxact

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	lock  = 0x6f7574626f78 // "outbox"
	page  = 50
	pause = 50 * time.Millisecond
)

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
		moved := 0
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) (err error) {
			moved, err = work(ctx, tx, ch, returns)
			return err
		})
		if err != nil {
			return err
		}
		if moved > 0 {
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

// work publishes a page of events if no other process is at it.
func work(ctx context.Context, tx pgx.Tx, ch *amqp.Channel, returns <-chan amqp.Return) (int, error) {
	var mine bool
	if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, lock).Scan(&mine); err != nil {
		return 0, fmt.Errorf("try the lock: %w", err)
	}
	if !mine {
		return 0, nil
	}
	rows, err := tx.Query(ctx, `
		SELECT seq, message_id::text, type, payload FROM outbox
		WHERE seq IN (
			SELECT min(seq) FROM outbox WHERE published_at IS NULL
			GROUP BY aggregate_id ORDER BY random() LIMIT $1)`, page)
	if err != nil {
		return 0, fmt.Errorf("read the outbox: %w", err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return 0, fmt.Errorf("read the outbox: %w", err)
	}
	delivered, err := publish(ctx, ch, returns, events)
	if err != nil || len(delivered) == 0 {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, delivered); err != nil {
		return 0, fmt.Errorf("mark the published events: %w", err)
	}
	return len(delivered), nil
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
