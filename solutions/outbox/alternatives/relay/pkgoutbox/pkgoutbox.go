// Package pkgoutbox answers outbox/relay with this course's own package, which
// publishes over the connection that was lent and ends when that breaks.
package pkgoutbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/outbox"
)

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	relay, err := outbox.NewRelay(db, outbox.Options{
		Conn:         conn,
		PollInterval: 50 * time.Millisecond,
		MinRetry:     50 * time.Millisecond,
		MaxRetry:     200 * time.Millisecond,
	})
	if err != nil {
		return fmt.Errorf("make the relay: %w", err)
	}
	return relay.Run(ctx)
}
