// Package lease answers outbox/relays with a lease: a row that names the process
// at work and says until when. No lock and no transaction is held while it talks
// to the broker. A lease may run out while its holder is still sending; that
// costs duplicates and no more, since a holder only ever sends the first
// unpublished event of an aggregate.
package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
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
	if err := makeTable(ctx, db); err != nil {
		return fmt.Errorf("make the table of leases: %w", err)
	}
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
	me := uuid.New()
	for {
		moved := 0
		mine, err := hold(ctx, db, me)
		if err == nil && mine {
			moved, err = work(ctx, db, ch, returns)
		}
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

// makeTable makes the table of the lease. The processes start together, and
// CREATE TABLE IF NOT EXISTS alone is no match for that.
func makeTable(ctx context.Context, db *pgxpool.Pool) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(161803)`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			CREATE TABLE IF NOT EXISTS relay_lease (
				id     int         PRIMARY KEY CHECK (id = 1),
				holder uuid        NOT NULL,
				until  timestamptz NOT NULL
			)`)
		return err
	})
}

// hold takes or renews the lease and says whether this process has it. The
// clock that counts is the database's, the same for everybody.
func hold(ctx context.Context, db *pgxpool.Pool, me uuid.UUID) (bool, error) {
	tag, err := db.Exec(ctx, `
		INSERT INTO relay_lease AS l VALUES (1, $1, clock_timestamp() + interval '400 milliseconds')
		ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until
		WHERE l.holder = excluded.holder OR l.until < clock_timestamp()`, me)
	if err != nil {
		return false, fmt.Errorf("take the lease: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// work publishes a page of events.
func work(ctx context.Context, db *pgxpool.Pool, ch *amqp.Channel, returns <-chan amqp.Return) (int, error) {
	rows, err := db.Query(ctx, `
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
	if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, delivered); err != nil {
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
