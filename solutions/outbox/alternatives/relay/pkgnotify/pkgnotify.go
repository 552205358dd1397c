// Package pkgnotify answers outbox/relay with this course's own package, woken by
// notifications. It makes its own connections to the broker, again and again.
package pkgnotify

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/outbox"
)

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, _ *amqp.Connection) error {
	relay, err := outbox.NewRelay(db, outbox.Options{
		Dial:         dial,
		Source:       outbox.Notify,
		PollInterval: 80 * time.Millisecond,
		Batch:        20,
		Partitions:   1,
		Delete:       true,
		MinRetry:     50 * time.Millisecond,
		MaxRetry:     200 * time.Millisecond,
	})
	if err != nil {
		return fmt.Errorf("make the relay: %w", err)
	}
	return relay.Run(ctx)
}

// dial connects to the broker, unless ctx ends before.
func dial(ctx context.Context) (*amqp.Connection, error) {
	return amqp.DialConfig(os.Getenv("AMQP_URL"), amqp.Config{
		Heartbeat: 2 * time.Second,
		Dial: func(network, addr string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: 5 * time.Second}
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return conn, conn.SetDeadline(time.Now().Add(5 * time.Second))
		},
	})
}
