// Package notify answers outbox/relay with LISTEN and NOTIFY: a trigger rings a
// bell when rows are committed, so that a new event goes out at once. The bell
// only wakes. What there is to do is always read from the table, and the poll
// stays, because a bell that rings while nobody listens is lost.
package notify

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	page = 50
	poll = 80 * time.Millisecond
)

type event struct {
	seq     int64
	id      string
	key     string
	payload []byte
}

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := relay(ctx, db, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listener

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

	wake := make(chan struct{}, 1)
	broken := make(chan error, 1)
	go func() { broken <- listen(ctx, wake) }()

	for {
		events, err := heads(ctx, db)
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		delivered, err := publish(ctx, ch, returns, events)
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if len(delivered) > 0 {
			if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, delivered); err != nil {
				return fmt.Errorf("mark the published events: %w", err)
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-time.After(poll):
		case err := <-broken:
			return fmt.Errorf("listen: %w", err)
		case err := <-closed:
			return fmt.Errorf("the channel was closed: %v", err)
		}
	}
}

// listen sends to wake whenever rows were committed, until ctx ends or its
// connection breaks. It has a connection of its own, since a listening one can
// do nothing else.
func listen(ctx context.Context, wake chan<- struct{}) error {
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// The trigger needs a lock that an open transaction with new events holds off.
	// Rather than stand in everybody's way, do without it: there is the poll.
	_, err = conn.Exec(ctx, `
		BEGIN;
		SET LOCAL lock_timeout = '50ms';
		CREATE OR REPLACE FUNCTION outbox_ring() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			NOTIFY outbox;
			RETURN NULL;
		END $$;
		CREATE OR REPLACE TRIGGER outbox_ring AFTER INSERT ON outbox
		FOR EACH STATEMENT EXECUTE FUNCTION outbox_ring();
		COMMIT`)
	if err != nil {
		if _, err := conn.Exec(ctx, `ROLLBACK`); err != nil {
			return err
		}
	}
	if _, err := conn.Exec(ctx, `LISTEN outbox`); err != nil {
		return err
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
		select {
		case wake <- struct{}{}:
		default: // awake already
		}
	}
}

// heads returns the first unpublished event of up to page aggregates. Which ones
// is left to chance, so that events nobody can take do not starve the others.
func heads(ctx context.Context, db *pgxpool.Pool) ([]event, error) {
	rows, err := db.Query(ctx, `
		WITH heads AS (
			SELECT min(seq) AS seq FROM outbox WHERE published_at IS NULL GROUP BY aggregate_id
			ORDER BY random() LIMIT $1
		)
		SELECT seq, message_id::text, type, payload FROM heads JOIN outbox USING (seq) ORDER BY seq`, page)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e event, err error) {
		err = row.Scan(&e.seq, &e.id, &e.key, &e.payload)
		return e, err
	})
}

// publish sends the events and returns the seq of those that reached a queue.
func publish(ctx context.Context, ch *amqp.Channel, returns <-chan amqp.Return, events []event) ([]int64, error) {
	waiting := make(map[string]*amqp.DeferredConfirmation, len(events))
	for _, e := range events {
		confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.key, true, false, amqp.Publishing{
			MessageId:    e.id,
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         e.payload,
		})
		if err != nil {
			return nil, err
		}
		waiting[e.id] = confirm
	}
	for _, confirm := range waiting {
		if _, err := confirm.WaitContext(ctx); err != nil {
			return nil, err
		}
	}
	for len(returns) > 0 {
		delete(waiting, (<-returns).MessageId)
	}
	var delivered []int64
	for _, e := range events {
		if confirm, ok := waiting[e.id]; ok && confirm.Acked() {
			delivered = append(delivered, e.seq)
		}
	}
	return delivered, nil
}
