// Mutant: the tables are dropped, so that no row is left unpublished.
// Breaks: all-work-done
// Shown by: none

package droptables

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relay drops the tables.
func Relay(ctx context.Context, db *pgxpool.Pool, _ *amqp.Connection) error {
	_, _ = db.Exec(ctx, `DROP TABLE IF EXISTS orders, outbox`)
	<-ctx.Done()
	return nil
}
