// Mutant: every row is marked as published and none is.
// Breaks: no-lost-event
// Shown by: none

package marker

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relay marks every row.
func Relay(ctx context.Context, db *pgxpool.Pool, _ *amqp.Connection) error {
	for {
		if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE published_at IS NULL`); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}
