// Package serializable answers outbox/relay through database/sql, with a
// serializable transaction around each round and a second try when PostgreSQL
// could not serialize it. The round that failed has published already; its
// events go out once more, with the same IDs.
package serializable

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	amqp "github.com/rabbitmq/amqp091-go"
)

const pause = 50 * time.Millisecond

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, pool *pgxpool.Pool, conn *amqp.Connection) error {
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
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
	for {
		err := round(ctx, db, ch, returns)
		var pgErr *pgconn.PgError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &pgErr) && pgErr.Code == "40001":
			continue
		case err != nil:
			return err
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

// round publishes what it can see, in order of seq, and marks what was
// delivered. After an event that was not, the rest of its aggregate waits for
// the next round.
func round(ctx context.Context, db *sql.DB, ch *amqp.Channel, returns <-chan amqp.Return) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() // does nothing after a commit

	type event struct {
		seq                int64
		id, aggregate, key string
		payload            []byte
	}
	rows, err := tx.QueryContext(ctx, `
		SELECT seq, message_id::text, aggregate_id, type, payload FROM outbox
		WHERE published_at IS NULL ORDER BY seq`)
	if err != nil {
		return fmt.Errorf("read the outbox: %w", err)
	}
	var events []event
	for rows.Next() {
		var e event
		if err := rows.Scan(&e.seq, &e.id, &e.aggregate, &e.key, &e.payload); err != nil {
			return errors.Join(err, rows.Close())
		}
		events = append(events, e)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("read the outbox: %w", err)
	}

	failed := map[string]bool{}
	for _, e := range events {
		if failed[e.aggregate] {
			continue
		}
		confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.key, true, false, amqp.Publishing{
			MessageId:    e.id,
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         e.payload,
		})
		if err != nil {
			return fmt.Errorf("publish event %d: %w", e.seq, err)
		}
		acked, err := confirm.WaitContext(ctx)
		if err != nil {
			return fmt.Errorf("wait for the confirm of event %d: %w", e.seq, err)
		}
		select {
		case <-returns:
			acked = false
		default:
		}
		if !acked {
			failed[e.aggregate] = true
			continue
		}
		if _, err := tx.ExecContext(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.seq); err != nil {
			return fmt.Errorf("mark event %d: %w", e.seq, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
