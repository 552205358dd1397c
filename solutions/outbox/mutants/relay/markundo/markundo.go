// Mutant: the row is marked before its event is published, and unmarked after every error; only a dead process cannot do that.
// Breaks: no-lost-event
// Shown by: kill

package markundo

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	pause    = 50 * time.Millisecond
	patience = 500 * time.Millisecond
)

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
		events, err := pending(ctx, db)
		if err != nil {
			return err
		}
		failed := map[string]bool{} // aggregates that have to wait
		for _, e := range events {
			if failed[e.Aggregate] {
				continue
			}
			delivered := false
			err := exec(ctx, db, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq)
			if err == nil {
				delivered, err = publish(ctx, ch, confirms, returns, e)
			}
			if !delivered {
				undo(db, e.Seq)
				failed[e.Aggregate] = true
			}
			if err != nil {
				return err
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

// exec gives the database half a second.
func exec(ctx context.Context, db *pgxpool.Pool, sql string, seq int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := db.Exec(ctx, sql, seq)
	return err
}

// undo makes the row pending again, whatever it takes.
func undo(db *pgxpool.Pool, seq int64) {
	for exec(context.Background(), db, `UPDATE outbox SET published_at = NULL WHERE seq = $1`, seq) != nil {
		time.Sleep(pause)
	}
}

func pending(ctx context.Context, db *pgxpool.Pool) ([]event, error) {
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
	case <-time.After(patience):
		return false, errors.New("the broker does not answer")
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
