// Attack: every other session of the server is ended, the judge's first.
// Wins if: a judge without sessions lets the answer pass.
package terminate

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relay ends sessions and does no work.
func Relay(ctx context.Context, db *pgxpool.Pool, _ *amqp.Connection) error {
	for ctx.Err() == nil {
		// The judge's own are refused; one refusal must not save the others.
		_, _ = db.Exec(ctx, `DO $$ DECLARE p int; BEGIN
			FOR p IN SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() LOOP
				BEGIN PERFORM pg_terminate_backend(p); EXCEPTION WHEN OTHERS THEN NULL; END;
			END LOOP; END $$`)
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
