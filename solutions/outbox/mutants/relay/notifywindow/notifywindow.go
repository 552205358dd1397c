// Mutant: a window of publishes, and NotifyPublish of amqp091-go for their confirmations: it tells a refusal that comes early as an ack when a later ack settles several at once.
// Breaks: no-lost-event
// Shown by: reject

package notifywindow

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const heads = `SELECT DISTINCT ON (aggregate_id) seq, message_id::text, type, payload
	FROM outbox WHERE published_at IS NULL ORDER BY aggregate_id, seq LIMIT 500`

type event struct {
	Seq     int64
	ID      string
	Type    string
	Payload []byte
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
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, 1000))
	returns := ch.NotifyReturn(make(chan amqp.Return, 1000))
	first := uint64(1) // the tag of the first event of a window
	for {
		rows, err := db.Query(ctx, heads)
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
		if err != nil {
			return err
		}
		for _, e := range events {
			err := ch.PublishWithContext(ctx, "events", e.Type, true, false, amqp.Publishing{
				MessageId: e.ID, ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: e.Payload,
			})
			if err != nil {
				return err
			}
		}
		acked := map[uint64]bool{}
		for range events {
			select {
			case <-ctx.Done():
				return nil
			case c, ok := <-confirms:
				if !ok {
					return amqp.ErrClosed
				}
				acked[c.DeliveryTag] = c.Ack
			}
		}
		back := map[string]bool{}
		for len(returns) > 0 {
			back[(<-returns).MessageId] = true
		}
		var done []int64
		for i, e := range events {
			if acked[first+uint64(i)] && !back[e.ID] {
				done = append(done, e.Seq)
			}
		}
		first += uint64(len(events))
		if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, done); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(30 * time.Millisecond):
			if ch.IsClosed() {
				return amqp.ErrClosed
			}
		}
	}
}
