// Mutant: the relay only waits to be told to stop.
// Breaks: all-work-done
// Shown by: none

package sleeper

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relays waits.
func Relays(ctx context.Context, _ *pgxpool.Pool, _ *amqp.Connection) error {
	<-ctx.Done()
	return nil
}
