// Mutant: nil is returned at once, so nothing is published and nothing can go wrong.
// Breaks: all-work-done
// Shown by: none

package donothing

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relays does nothing.
func Relays(context.Context, *pgxpool.Pool, *amqp.Connection) error { return nil }
