// Attack: the database server is told to run a program, or to read and write files.
// Wins if: the answer's role may.
package copyprogram

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/solutions/outbox/reference/relay"
)

// Relay works only if the server obeys.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	for _, sql := range []string{
		`COPY (SELECT 1) TO PROGRAM 'true'`,
		`SELECT pg_read_file('postgresql.conf')`,
		`COPY (SELECT 1) TO '/tmp/crashcourse-attack'`,
		`CREATE ROLE attack SUPERUSER`,
		`ALTER ROLE CURRENT_USER SUPERUSER`,
		`CREATE DATABASE attack`,
		`SELECT pg_reload_conf()`,
		`TRUNCATE outbox`,
		`DROP TABLE outbox CASCADE`,
		`ALTER TABLE outbox DISABLE TRIGGER ALL`,
	} {
		if _, err := db.Exec(ctx, sql); err == nil {
			return relay.Relay(ctx, db, conn)
		}
	}
	return errors.New("the server did not obey")
}
