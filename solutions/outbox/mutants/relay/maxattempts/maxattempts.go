// Mutant: after 15 refused attempts (a second) an event is moved to a table of dead letters, as a poison message.
// Breaks: no-lost-event
// Shown by: unrouted

package maxattempts

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := run(ctx, db, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

type event struct {
	Seq       int64
	ID        string
	Aggregate string
	Type      string
	Payload   string
}

func message(e event) amqp.Publishing {
	return amqp.Publishing{
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		MessageId:    e.ID,
		Body:         []byte(e.Payload),
	}
}

func run(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	gone := ch.NotifyClose(make(chan *amqp.Error, 1))
	returns := ch.NotifyReturn(make(chan amqp.Return, 256))
	if _, err := db.Exec(ctx, `CREATE TABLE IF NOT EXISTS outbox_dead (LIKE outbox)`); err != nil {
		return err
	}
	attempts := map[int64]int{}
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	waiting := map[string]time.Time{}
	for {
		events, err := heads(ctx, db, waiting)
		if err != nil {
			return err
		}
		if len(events) > 0 {
			if err := publish(ctx, db, ch, returns, events, waiting, attempts); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-gone:
			return fmt.Errorf("channel closed: %v", err)
		case <-tick.C:
		}
	}
}

// heads reads the first unpublished event of every aggregate which is not
// waiting for its next attempt.
func heads(ctx context.Context, db *pgxpool.Pool, waiting map[string]time.Time) ([]event, error) {
	skip := []string{}
	for aggregate, until := range waiting {
		if time.Now().Before(until) {
			skip = append(skip, aggregate)
		} else {
			delete(waiting, aggregate)
		}
	}
	rows, err := db.Query(ctx, `
		SELECT seq, message_id::text, aggregate_id, type, payload::text
		FROM (SELECT DISTINCT ON (aggregate_id) * FROM outbox
		      WHERE published_at IS NULL AND aggregate_id <> ALL($1)
		      ORDER BY aggregate_id, seq) head
		ORDER BY seq LIMIT 100`, skip)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[event])
}

func publish(ctx context.Context, db *pgxpool.Pool, ch *amqp.Channel, returns <-chan amqp.Return, events []event, waiting map[string]time.Time, attempts map[int64]int) error {
	confirms := make([]*amqp.DeferredConfirmation, len(events))
	for i, e := range events {
		dc, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.Type, true, false, message(e))
		if err != nil {
			return err
		}
		confirms[i] = dc
	}
	acked := make([]bool, len(events))
	for i, dc := range confirms {
		ok, err := dc.WaitContext(ctx)
		if err != nil {
			return err
		}
		acked[i] = ok
	}
	returned := map[string]bool{}
	for more := true; more; {
		select {
		case r, ok := <-returns:
			if !ok {
				return amqp.ErrClosed
			}
			returned[r.MessageId] = true
		default:
			more = false
		}
	}
	var done []int64
	for i, e := range events {
		if acked[i] && !returned[e.ID] {
			done = append(done, e.Seq)
			delete(attempts, e.Seq)
		} else {
			waiting[e.Aggregate] = time.Now().Add(50 * time.Millisecond)
			if attempts[e.Seq]++; attempts[e.Seq] >= 15 {
				delete(attempts, e.Seq)
				if _, err := db.Exec(ctx, `
					WITH dead AS (DELETE FROM outbox WHERE seq = $1 RETURNING *)
					INSERT INTO outbox_dead SELECT * FROM dead`, e.Seq); err != nil {
					return err
				}
			}
		}
	}
	if len(done) == 0 {
		return nil
	}
	_, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, done)
	return err
}
