// Package claims answers outbox/relays with a claim on each aggregate, kept in a
// table: who has it, and until when. A claim that its holder does not renew goes
// to whoever asks next. The claim is for the whole aggregate and not for a row,
// so whoever has it sends the events from the first unpublished one on.
package claims

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	share = 4 // most aggregates claimed at once
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
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		// One maker at a time.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(141421)`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			CREATE TABLE IF NOT EXISTS relay_claims (
				aggregate_id text        PRIMARY KEY,
				holder       text        NOT NULL,
				until        timestamptz NOT NULL
			)`)
		return err
	})
	if err != nil {
		return fmt.Errorf("make the table of claims: %w", err)
	}
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	defer ch.Close()
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirms: %w", err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, share))
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	me := fmt.Sprintf("%d %s", os.Getpid(), uuid.NewString())
	for {
		moved, err := work(ctx, db, ch, returns, me)
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

// work claims some aggregates and sends the first unpublished event of each.
func work(ctx context.Context, db *pgxpool.Pool, ch *amqp.Channel, returns <-chan amqp.Return, me string) (int, error) {
	// Picked by chance, so that events nobody can take do not starve the others.
	rows, err := db.Query(ctx, `
		WITH free AS (
			SELECT DISTINCT aggregate_id FROM outbox
			WHERE published_at IS NULL AND aggregate_id NOT IN (
				SELECT aggregate_id FROM relay_claims WHERE holder <> $1 AND until > clock_timestamp())
		), picked AS (
			SELECT aggregate_id FROM free ORDER BY random() LIMIT $2
		)
		INSERT INTO relay_claims AS c
		SELECT aggregate_id, $1, clock_timestamp() + interval '400 milliseconds' FROM picked ORDER BY aggregate_id
		ON CONFLICT (aggregate_id) DO UPDATE SET holder = excluded.holder, until = excluded.until
		WHERE c.holder = excluded.holder OR c.until < clock_timestamp()
		RETURNING aggregate_id`, me, share)
	if err != nil {
		return 0, fmt.Errorf("claim aggregates: %w", err)
	}
	claimed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, fmt.Errorf("claim aggregates: %w", err)
	}
	if len(claimed) == 0 {
		return 0, nil
	}
	rows, err = db.Query(ctx, `
		SELECT DISTINCT ON (aggregate_id) seq, message_id::text, type, payload FROM outbox
		WHERE published_at IS NULL AND aggregate_id = ANY($1)
		ORDER BY aggregate_id, seq`, claimed)
	if err != nil {
		return 0, fmt.Errorf("read the outbox: %w", err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return 0, fmt.Errorf("read the outbox: %w", err)
	}
	delivered, err := publish(ctx, ch, returns, events)
	if err != nil {
		return 0, err
	}
	if len(delivered) > 0 {
		if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, delivered); err != nil {
			return 0, fmt.Errorf("mark the published events: %w", err)
		}
	}
	if _, err := db.Exec(ctx, `DELETE FROM relay_claims WHERE holder = $1`, me); err != nil {
		return 0, fmt.Errorf("give up the claims: %w", err)
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
