// Mutant: the outbox is emptied, so that no event is left over.
// Breaks: no-lost-event
// Shown by: none

package truncate

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relay deletes every row.
func Relay(ctx context.Context, db *pgxpool.Pool, _ *amqp.Connection) error {
	for {
		if _, err := db.Exec(ctx, `DELETE FROM outbox`); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}
