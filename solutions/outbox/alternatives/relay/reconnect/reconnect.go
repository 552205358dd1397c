// Package reconnect answers outbox/relay with connections of its own, which it
// replaces itself: it returns only when it is told to stop. Each session begins
// with new connections and a new channel and keeps nothing of the one before.
package reconnect

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	pause    = 50 * time.Millisecond
	patience = 5 * time.Second // with a server that does not answer
)

type event struct {
	seq     int64
	id      string
	key     string
	payload []byte
}

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, _ *pgxpool.Pool, _ *amqp.Connection) error {
	for {
		err := session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		log.Printf("begin again after: %v", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// session works until something breaks.
func session(ctx context.Context) error {
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = db.Close(ctx)
	}()
	conn, err := amqp.DialConfig(os.Getenv("AMQP_URL"), amqp.Config{
		Heartbeat: time.Second,
		Dial: func(network, addr string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: patience}
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			// For the handshake; the library moves it on afterwards.
			return c, c.SetDeadline(time.Now().Add(patience))
		},
	})
	if err != nil {
		return fmt.Errorf("connect to RabbitMQ: %w", err)
	}
	defer func() { _ = conn.CloseDeadline(time.Now().Add(time.Second)) }()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirms: %w", err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))

	for {
		moved, err := round(ctx, db, ch, returns)
		if err != nil {
			return err
		}
		if moved {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-closed:
			return fmt.Errorf("the channel was closed: %v", err)
		case <-time.After(pause):
		}
	}
}

// round goes once through the unpublished events in order of seq. It passes over
// the rest of an aggregate once one of its events could not be delivered.
func round(ctx context.Context, db *pgx.Conn, ch *amqp.Channel, returns <-chan amqp.Return) (moved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	failed := []string{}
	for {
		var e event
		var aggregate string
		err := db.QueryRow(ctx, `
			SELECT seq, aggregate_id, message_id::text, type, payload FROM outbox
			WHERE published_at IS NULL AND aggregate_id <> ALL($1)
			ORDER BY seq LIMIT 1`, failed).Scan(&e.seq, &aggregate, &e.id, &e.key, &e.payload)
		if errors.Is(err, pgx.ErrNoRows) {
			return moved, nil
		}
		if err != nil {
			return moved, fmt.Errorf("read the outbox: %w", err)
		}
		delivered, err := publish(ctx, ch, returns, e)
		if err != nil {
			return moved, fmt.Errorf("publish event %d: %w", e.seq, err)
		}
		if !delivered {
			failed = append(failed, aggregate)
			continue
		}
		if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.seq); err != nil {
			return moved, fmt.Errorf("mark event %d: %w", e.seq, err)
		}
		moved = true
	}
}

func publish(ctx context.Context, ch *amqp.Channel, returns <-chan amqp.Return, e event) (delivered bool, err error) {
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.key, true, false, amqp.Publishing{
		MessageId:    e.id,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         e.payload,
	})
	if err != nil {
		return false, err
	}
	acked, err := confirm.WaitContext(ctx)
	if err != nil {
		return false, err
	}
	select {
	case <-returns:
		return false, nil
	default:
		return acked, nil
	}
}
