// Mutant: after a failed statement the relay goes on in the same transaction, where every statement fails.
// Breaks: all-work-done
// Shown by: fail

package abortedtx

import (
	"context"
	"errors"
	"log"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const pause = 50 * time.Millisecond

type event struct {
	Seq       int64
	Aggregate string
	ID        string
	Type      string
	Payload   []byte
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
	tx, err := db.Acquire(ctx)
	if err != nil {
		return err
	}
	defer tx.Release()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, 1))
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	for {
		// Begins the next transaction; within one it does nothing.
		if _, err := tx.Exec(ctx, `BEGIN`); err != nil {
			log.Printf("begin: %v", err)
		}
		events, err := pending(ctx, tx)
		if tx.Conn().IsClosed() {
			return err
		}
		if err != nil {
			log.Printf("read the outbox: %v", err)
			time.Sleep(pause)
			continue
		}
		failed := map[string]bool{} // aggregates that have to wait
		for _, e := range events {
			if failed[e.Aggregate] {
				continue
			}
			delivered, err := publish(ctx, ch, confirms, returns, e)
			if err != nil {
				return err
			}
			if !delivered {
				failed[e.Aggregate] = true
				continue
			}
			if _, err := tx.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
				log.Printf("mark event %s: %v", e.ID, err)
				failed[e.Aggregate] = true
			}
		}
		if len(events) > len(failed) {
			if _, err := tx.Exec(ctx, `COMMIT`); err != nil {
				log.Printf("commit: %v", err)
			}
		}
		if ch.IsClosed() {
			return amqp.ErrClosed
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func pending(ctx context.Context, db *pgxpool.Conn) ([]event, error) {
	rows, err := db.Query(ctx, `
		SELECT seq, aggregate_id, message_id::text, type, payload FROM outbox
		WHERE published_at IS NULL ORDER BY seq`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[event])
}

func publish(ctx context.Context, ch *amqp.Channel, confirms <-chan amqp.Confirmation, returns <-chan amqp.Return, e event) (bool, error) {
	err := ch.PublishWithContext(ctx, "events", e.Type, true, false, amqp.Publishing{
		MessageId:    e.ID,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         e.Payload,
	})
	if err != nil {
		return false, err
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case c, ok := <-confirms:
		if !ok {
			return false, errors.New("the channel was closed")
		}
		select {
		case <-returns:
			return false, nil
		default:
			return c.Ack, nil
		}
	}
}
