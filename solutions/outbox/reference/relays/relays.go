// Package relays is the reference answer to outbox/relays.
package relays

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

// Relays publishes every committed row of outbox until ctx ends, side by side
// with other processes that do the same.
//
// They share the work by row locks, and only the first unpublished event of an
// aggregate may be locked. So no two processes hold events of one aggregate, and
// whoever takes an event knows that all before it have arrived. The locks belong
// to the transaction: a process that dies gives them up by dying.
func Relays(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
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
		var delivered []int64
		// One transaction from the lock to the mark. Without it the locks would
		// end with the SELECT and protect nothing.
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			events, err := lockHeads(ctx, tx, after)
			if err != nil {
				return fmt.Errorf("read the outbox: %w", err)
			}
			// The next page goes on behind this one, the one after a short page from
			// the start: events that nobody can take never stand before the others.
			after = ""
			if len(events) == page {
				after = events[page-1].Aggregate
			}
			if delivered, err = publish(ctx, ch, returns, events); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
			if len(delivered) == 0 {
				return nil
			}
			if _, err = tx.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, delivered); err != nil {
				return fmt.Errorf("mark the published events: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(delivered) > 0 {
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

// lockHeads locks and returns the first unpublished event of each of the next
// aggregates, leaving out those that another process has locked.
//
// Leaving out locked rows is only safe because of NOT EXISTS. Without it, the
// second event of an aggregate would be free to take while another process is
// still busy with the first.
func lockHeads(ctx context.Context, tx pgx.Tx, after string) ([]event, error) {
	rows, err := tx.Query(ctx, `
		SELECT seq, aggregate_id, message_id::text, type, payload
		FROM outbox o
		WHERE published_at IS NULL AND aggregate_id > $1 AND NOT EXISTS (
			SELECT FROM outbox earlier
			WHERE earlier.aggregate_id = o.aggregate_id AND earlier.seq < o.seq AND earlier.published_at IS NULL)
		ORDER BY aggregate_id
		LIMIT $2
		FOR UPDATE SKIP LOCKED`, after, page)
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
