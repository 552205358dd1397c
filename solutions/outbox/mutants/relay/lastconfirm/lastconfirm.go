// Mutant: only the confirm of the last event of a batch is waited for; that an earlier one was refused goes unseen.
// Breaks: no-lost-event
// Shown by: nack

package lastconfirm

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
			WHERE seq IN (
				SELECT min(seq) FROM outbox WHERE published_at IS NULL
				GROUP BY aggregate_id ORDER BY random() LIMIT $1)`, page)
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
	if len(events) == 0 {
		return nil, nil
	}
	// The broker answers in order, so the last answer is the answer to all.
	ok, err := confirms[len(confirms)-1].WaitContext(ctx)
	if err != nil || !ok {
		return nil, err
	}
	returned := map[string]bool{}
	for len(returns) > 0 {
		returned[(<-returns).MessageId] = true
	}
	var delivered []int64
	for _, e := range events {
		if !returned[e.ID] {
			delivered = append(delivered, e.Seq)
		}
	}
	return delivered, nil
}
