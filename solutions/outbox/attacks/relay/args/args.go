// Attack: the arguments of the process are rewritten, so that it tests nothing and succeeds.
// Wins if: a process that succeeds is taken for an answer that works.
package args

import (
	"context"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

func init() { os.Args = []string{os.Args[0], "-test.run=^$"} }

// Relay is never called.
func Relay(context.Context, *pgxpool.Pool, *amqp.Connection) error { return nil }
