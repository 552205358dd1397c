// Package partitions answers outbox/relays by dividing the aggregates among a
// fixed number of partitions, by hash. Each has an advisory lock, and whoever
// holds it, for the length of one transaction, works on that partition alone.
package partitions

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	locks      = 314159 // the first key of the advisory locks
	partitions = 4
	pause      = 50 * time.Millisecond
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
	w := worker{
		ch:      ch,
		returns: ch.NotifyReturn(make(chan amqp.Return, 1)),
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	for {
		moved := false
		// Everybody goes round in an order of their own, so as not to queue up.
		for _, partition := range rand.Perm(partitions) {
			err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
				delivered, err := w.work(ctx, tx, partition)
				moved = moved || delivered
				return err
			})
			if err != nil {
				return fmt.Errorf("partition %d: %w", partition, err)
			}
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

type worker struct {
	ch      *amqp.Channel
	returns <-chan amqp.Return
}

// work publishes some events of a partition, one by one in order of seq, unless
// another process has the partition.
func (w worker) work(ctx context.Context, tx pgx.Tx, partition int) (moved bool, err error) {
	// The lock and the rows in two statements: the second one sees all that the
	// holder of the lock before us has committed.
	var mine bool
	if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1, $2)`, locks, partition).Scan(&mine); err != nil {
		return false, fmt.Errorf("try the lock: %w", err)
	}
	if !mine {
		return false, nil
	}
	rows, err := tx.Query(ctx, `
		SELECT seq, aggregate_id, message_id::text, type, payload FROM outbox
		WHERE published_at IS NULL AND abs(hashtext(aggregate_id)::bigint) % $1 = $2
		ORDER BY seq`, partitions, partition)
	if err != nil {
		return false, fmt.Errorf("read the outbox: %w", err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return false, fmt.Errorf("read the outbox: %w", err)
	}
	stuck := map[string]bool{} // aggregates with an event that could not be delivered
	for _, e := range events {
		if stuck[e.Aggregate] {
			continue
		}
		delivered, err := w.publish(ctx, e)
		if err != nil {
			return moved, fmt.Errorf("publish event %s: %w", e.ID, err)
		}
		if !delivered {
			stuck[e.Aggregate] = true
			continue
		}
		if _, err := tx.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
			return moved, fmt.Errorf("mark event %s: %w", e.ID, err)
		}
		moved = true
	}
	return moved, nil
}

// publish sends one event and says whether it reached a queue.
func (w worker) publish(ctx context.Context, e event) (bool, error) {
	confirm, err := w.ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.Key, true, false, amqp.Publishing{
		MessageId:    e.ID,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         e.Payload,
	})
	if err != nil {
		return false, err
	}
	acked, err := confirm.WaitContext(ctx)
	select {
	case <-w.returns: // it came before the confirm
		acked = false
	default:
	}
	return acked, err
}
