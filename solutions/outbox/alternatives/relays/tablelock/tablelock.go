// Package tablelock answers outbox/relays with a lock on the table itself, in a
// mode that stands in the way of nobody but another relay: rows are inserted and
// read all the while.
package tablelock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	page  = 40
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
		moved, err := workAsOnlyOne(ctx, db, ch, returns)
		if err != nil {
			return err
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

// workAsOnlyOne works while it holds the table, until nothing more can be done
// or a second has passed and others may have a turn.
func workAsOnlyOne(ctx context.Context, db *pgxpool.Pool, ch *amqp.Channel, returns <-chan amqp.Return) (moved bool, err error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback(ctx) // does nothing after a commit

	_, err = tx.Exec(ctx, `LOCK TABLE outbox IN SHARE UPDATE EXCLUSIVE MODE NOWAIT`)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "55P03" { // lock_not_available
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock the table: %w", err)
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		events, err := heads(ctx, tx)
		if err != nil {
			return false, fmt.Errorf("read the outbox: %w", err)
		}
		delivered, err := publish(ctx, ch, returns, events)
		if err != nil {
			return false, err
		}
		if len(delivered) == 0 {
			break
		}
		if _, err := tx.Exec(ctx, `UPDATE outbox SET published_at = clock_timestamp() WHERE seq = ANY($1)`, delivered); err != nil {
			return false, fmt.Errorf("mark the published events: %w", err)
		}
		moved = true
	}
	if err := tx.Commit(ctx); err != nil {
		return false, fmt.Errorf("commit: %w", err)
	}
	return moved, nil
}

// heads returns the first unpublished event of some aggregates, picked by chance.
func heads(ctx context.Context, tx pgx.Tx) ([]event, error) {
	rows, err := tx.Query(ctx, `
		SELECT * FROM (
			SELECT DISTINCT ON (aggregate_id) seq, aggregate_id, message_id::text, type, payload
			FROM outbox WHERE published_at IS NULL
			ORDER BY aggregate_id, seq) AS h
		ORDER BY random()
		LIMIT $1`, page)
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
