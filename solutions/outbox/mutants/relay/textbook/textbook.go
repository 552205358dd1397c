// Mutant: every second up to 100 rows by created_at with FOR UPDATE SKIP LOCKED outside a transaction, published without message ID and confirm, then marked.
// Breaks: event-intact
// Shown by: none

package textbook

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

type event struct {
	Seq     int64
	Type    string
	Payload []byte
}

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// FOR UPDATE SKIP LOCKED makes it safe to run several relays.
		rows, err := db.Query(ctx, `
			SELECT seq, type, payload FROM outbox
			WHERE published_at IS NULL
			ORDER BY created_at
			LIMIT 100
			FOR UPDATE SKIP LOCKED`)
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := ch.PublishWithContext(ctx, "events", e.Type, false, false, amqp.Publishing{
				ContentType:  "application/json",
				DeliveryMode: amqp.Persistent,
				Body:         e.Payload,
			}); err != nil {
				return err
			}
			if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
				return err
			}
		}
	}
}
