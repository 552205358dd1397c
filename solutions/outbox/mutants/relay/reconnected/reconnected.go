// Mutant: after a lost broker connection it opens a new channel without confirm.select; the confirmation is then nil, which the code takes for "nothing to wait for".
// Breaks: no-lost-event
// Shown by: a cut, and a blackhole on the new connection

package reconnected

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

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

type relay struct {
	conn    *amqp.Connection
	ch      *amqp.Channel
	returns <-chan amqp.Return
	waiting map[string]time.Time
}

func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	r := &relay{conn: conn, waiting: map[string]time.Time{}}
	if err := r.open(); err != nil {
		return err
	}
	if err := r.ch.Confirm(false); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if r.ch.IsClosed() {
			if err := r.reconnect(ctx); err != nil {
				return err
			}
		}
		events, err := heads(ctx, db, r.waiting)
		if err == nil && len(events) > 0 {
			err = r.publish(ctx, db, events)
			if errors.Is(err, amqp.ErrClosed) {
				continue
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(25 * time.Millisecond):
		}
	}
	return nil
}

func (r *relay) open() error {
	ch, err := r.conn.Channel()
	if err != nil {
		return err
	}
	r.ch, r.returns = ch, ch.NotifyReturn(make(chan amqp.Return, 256))
	return nil
}

func (r *relay) reconnect(ctx context.Context) error {
	for try := 0; ; try++ {
		var err error
		if r.conn.IsClosed() {
			var conn *amqp.Connection
			if conn, err = amqp.DialConfig(os.Getenv("AMQP_URL"), amqp.Config{Dial: amqp.DefaultDial(time.Second)}); err == nil {
				r.conn = conn
			}
		}
		if err == nil {
			err = r.open()
		}
		if err == nil || try == 15 || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// confirmed waits for the broker's answer.
func confirmed(ctx context.Context, dc *amqp.DeferredConfirmation) (bool, error) {
	if dc == nil { // the channel is not in confirm mode
		return true, nil
	}
	return dc.WaitContext(ctx)
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

func (r *relay) publish(ctx context.Context, db *pgxpool.Pool, events []event) error {
	returns, waiting := r.returns, r.waiting
	confirms := make([]*amqp.DeferredConfirmation, len(events))
	for i, e := range events {
		dc, err := r.ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.Type, true, false, message(e))
		if err != nil {
			return err
		}
		confirms[i] = dc
	}
	acked := make([]bool, len(events))
	for i, dc := range confirms {
		ok, err := confirmed(ctx, dc)
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
		} else {
			waiting[e.Aggregate] = time.Now().Add(50 * time.Millisecond)
		}
	}
	if len(done) == 0 {
		return nil
	}
	_, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, done)
	return err
}
