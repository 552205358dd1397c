// Mutant: the connections that were lent are closed, and nothing is published.
// Breaks: all-work-done
// Shown by: none

package closeconn

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relay closes what it was lent.
func Relay(_ context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	db.Close()
	return conn.Close()
}
