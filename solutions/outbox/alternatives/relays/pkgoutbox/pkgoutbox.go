// Package pkgoutbox answers outbox/relays with this course's own package: the
// processes divide the partitions among themselves.
package pkgoutbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/outbox"
)

// Relays publishes every committed row of outbox until ctx ends.
func Relays(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	relay, err := outbox.NewRelay(db, outbox.Options{
		Conn:         conn,
		Partitions:   3,
		PollInterval: 50 * time.Millisecond,
		MinRetry:     50 * time.Millisecond,
		MaxRetry:     200 * time.Millisecond,
	})
	if err != nil {
		return fmt.Errorf("make the relay: %w", err)
	}
	return relay.Run(ctx)
}
