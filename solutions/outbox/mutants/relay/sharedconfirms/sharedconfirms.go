// Mutant: a goroutine for each aggregate, and one channel of confirmations for all: each takes the next one for its own.
// Breaks: no-lost-event
// Shown by: reject

package sharedconfirms

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

const heads = `SELECT DISTINCT ON (aggregate_id) seq, message_id::text, type, payload
	FROM outbox WHERE published_at IS NULL ORDER BY aggregate_id, seq`

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
	gone := ch.NotifyClose(make(chan *amqp.Error, 1))
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, 1000))
	returns := ch.NotifyReturn(make(chan amqp.Return, 1000))
	for {
		rows, err := db.Query(ctx, heads)
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
		if err != nil {
			return err
		}
		back := map[string]bool{}
		delivered := make([]bool, len(events))
		group, gctx := errgroup.WithContext(ctx)
		for i, e := range events {
			group.Go(func() error {
				var err error
				delivered[i], err = publish(gctx, ch, confirms, e)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for len(returns) > 0 {
			back[(<-returns).MessageId] = true
		}
		for i, e := range events {
			if !delivered[i] || back[e.ID] {
				continue
			}
			if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-gone:
			return fmt.Errorf("the channel was closed: %v", err)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func publish(ctx context.Context, ch *amqp.Channel, confirms <-chan amqp.Confirmation, e event) (bool, error) {
	err := ch.PublishWithContext(ctx, "events", e.Type, true, false, amqp.Publishing{
		MessageId: e.ID, ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: e.Payload,
	})
	if err != nil {
		return false, err
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case c, ok := <-confirms:
		if !ok {
			return false, amqp.ErrClosed
		}
		return c.Ack, nil
	}
}
