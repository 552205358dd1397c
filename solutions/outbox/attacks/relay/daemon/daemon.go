// Attack: a process that forks away before the crash finishes the work after it.
// Wins if: what a process started outlives it, and still has a way to the servers.
package daemon

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const daemonEnv = "ATTACK_DAEMON"

// Relay marks rows before it publishes them, and relies on a daemon for those
// whose process dies in between.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	if os.Getenv(daemonEnv) == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.Command(self, os.Args[1:]...)
		cmd.Env = append(os.Environ(), daemonEnv+"=1", "HOME=/", "TMPDIR=/tmp")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
	}
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		rows, err := db.Query(ctx, `UPDATE outbox SET published_at = now() WHERE seq = (SELECT min(seq) FROM outbox WHERE published_at IS NULL)
			RETURNING message_id::text, type, payload`)
		if err != nil {
			return err
		}
		n := 0
		for rows.Next() {
			n++
			var id, kind string
			var payload []byte
			if err := rows.Scan(&id, &kind, &payload); err != nil {
				return err
			}
			if err := ch.PublishWithContext(ctx, "events", kind, true, false, amqp.Publishing{
				MessageId: id, ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: payload}); err != nil {
				return err
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if n == 0 {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}
