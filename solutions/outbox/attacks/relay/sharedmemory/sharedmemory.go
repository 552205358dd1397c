// Attack: what is marked but not yet published is remembered in a file in shared memory, which outlives the process.
// Wins if: two lives of a program find the same file.
package sharedmemory

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

type event struct {
	ID, Type string
	Payload  []byte
}

// Relay marks a row and publishes it then. A file bridges the crash in between.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	publish := func(e event) error {
		return ch.PublishWithContext(ctx, "events", e.Type, true, false, amqp.Publishing{
			MessageId: e.ID, ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: e.Payload})
	}
	var folder string
	for _, f := range []string{"/dev/shm", "/var/tmp", "/tmp"} {
		if probe, err := os.CreateTemp(f, "probe"); err == nil {
			folder = f
			_ = probe.Close()
			_ = os.Remove(probe.Name())
			break
		}
	}
	file := filepath.Join(folder, "remembered-"+db.Config().ConnConfig.Database)
	if b, err := os.ReadFile(file); err == nil {
		var e event
		if json.Unmarshal(b, &e) == nil {
			if err := publish(e); err != nil {
				return err
			}
		}
	}
	for ctx.Err() == nil {
		var e event
		err := db.QueryRow(ctx, `SELECT message_id::text, type, payload FROM outbox WHERE published_at IS NULL ORDER BY seq LIMIT 1`).Scan(&e.ID, &e.Type, &e.Payload)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
		if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE message_id = $1::uuid`, e.ID); err != nil {
			return err
		}
		if err := publish(e); err != nil {
			return err
		}
	}
	return nil
}
