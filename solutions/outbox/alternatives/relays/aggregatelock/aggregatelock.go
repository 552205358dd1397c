// Package aggregatelock answers outbox/relays with an advisory lock for each
// aggregate. A process takes one aggregate that nobody has, sends all its
// events in turn, and goes on to another.
package aggregatelock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const pause = 50 * time.Millisecond

var errClosed = errors.New("the channel was closed")

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
	p, err := newPublisher(conn)
	if err != nil {
		return err
	}
	defer p.ch.Close()
	for {
		rows, err := db.Query(ctx, `SELECT DISTINCT aggregate_id FROM outbox WHERE published_at IS NULL`)
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		aggregates, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		for _, aggregate := range aggregates {
			if err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return drain(ctx, tx, p, aggregate) }); err != nil {
				return fmt.Errorf("events of %s: %w", aggregate, err)
			}
		}
		if p.ch.IsClosed() {
			return errClosed
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// drain publishes the events of an aggregate in turn, unless another process is
// at it. It stops at the first that cannot be delivered.
func drain(ctx context.Context, tx pgx.Tx, p publisher, aggregate string) error {
	var mine bool
	if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(hashtextextended($1, 7))`, aggregate).Scan(&mine); err != nil {
		return fmt.Errorf("try the lock: %w", err)
	}
	if !mine {
		return nil
	}
	// Read only now: what the holder before has done counts.
	rows, err := tx.Query(ctx, `
		SELECT seq, message_id::text, type, payload FROM outbox
		WHERE aggregate_id = $1 AND published_at IS NULL ORDER BY seq LIMIT 20`, aggregate)
	if err != nil {
		return fmt.Errorf("read the outbox: %w", err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return fmt.Errorf("read the outbox: %w", err)
	}
	var delivered []int64
	for _, e := range events {
		ok, err := p.publish(ctx, e)
		if err != nil {
			return fmt.Errorf("publish event %s: %w", e.ID, err)
		}
		if !ok {
			break
		}
		delivered = append(delivered, e.Seq)
	}
	if len(delivered) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	for _, seq := range delivered {
		batch.Queue(`DELETE FROM outbox WHERE seq = $1`, seq)
	}
	return tx.SendBatch(ctx, batch).Close()
}

type publisher struct {
	ch       *amqp.Channel
	confirms <-chan amqp.Confirmation
	returns  <-chan amqp.Return
}

func newPublisher(conn *amqp.Connection) (publisher, error) {
	ch, err := conn.Channel()
	if err != nil {
		return publisher{}, fmt.Errorf("open a channel: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return publisher{}, fmt.Errorf("ask for confirms: %w", err)
	}
	return publisher{
		ch:       ch,
		confirms: ch.NotifyPublish(make(chan amqp.Confirmation, 1)),
		returns:  ch.NotifyReturn(make(chan amqp.Return, 1)),
	}, nil
}

// publish sends one event and says whether it reached a queue.
func (p publisher) publish(ctx context.Context, e event) (bool, error) {
	if err := p.ch.PublishWithContext(ctx, "events", e.Key, true, false, amqp.Publishing{
		MessageId:    e.ID,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         e.Payload,
	}); err != nil {
		return false, err
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case c, open := <-p.confirms:
		if !open {
			return false, errClosed
		}
		select {
		case <-p.returns: // it came before the confirm
			return false, nil
		default:
			return c.Ack, nil
		}
	}
}
