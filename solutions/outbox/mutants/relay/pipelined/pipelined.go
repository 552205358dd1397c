// Mutant: a whole batch is on its way at once, so the broker may refuse an event and take the next one of the same aggregate.
// Breaks: order-per-key
// Shown by: nack

package pipelined

import (
	"context"
	"time"

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
	returns := ch.NotifyReturn(make(chan amqp.Return, page))
	for {
		rows, err := db.Query(ctx, `
			SELECT seq, message_id::text, type, payload FROM outbox
			WHERE published_at IS NULL ORDER BY seq LIMIT $1`, page)
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
		if err != nil {
			return err
		}
		delivered, err := publish(ctx, ch, returns, events)
		if err != nil {
			return err
		}
		if len(delivered) > 0 {
			if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, delivered); err != nil {
				return err
			}
			continue
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

func publish(ctx context.Context, ch *amqp.Channel, returns <-chan amqp.Return, events []event) ([]int64, error) {
	var confirms []*amqp.DeferredConfirmation
	for _, e := range events {
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
	acked := map[string]bool{}
	for i, confirm := range confirms {
		ok, err := confirm.WaitContext(ctx)
		if err != nil {
			return nil, err
		}
		acked[events[i].ID] = ok
	}
	for len(returns) > 0 {
		acked[(<-returns).MessageId] = false
	}
	var delivered []int64
	for _, e := range events {
		if acked[e.ID] {
			delivered = append(delivered, e.Seq)
		}
	}
	return delivered, nil
}
