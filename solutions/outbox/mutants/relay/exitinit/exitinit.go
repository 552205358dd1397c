// Mutant: the process prints that it passed and leaves with exit code 0 before any work begins.
// Breaks: all-work-done
// Shown by: none

package exitinit

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

func init() {
	fmt.Println("--- PASS: TestRelay (0.00s)")
	fmt.Println("PASS")
	os.Exit(0)
}

// Relay is never reached.
func Relay(context.Context, *pgxpool.Pool, *amqp.Connection) error { return nil }
