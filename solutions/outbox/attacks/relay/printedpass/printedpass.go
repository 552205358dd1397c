// Attack: the output says that all is well, and the exit code agrees.
// Wins if: anybody believes what the answer's process says.
package printedpass

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relay prints a verdict of its own, on every channel it finds.
func Relay(context.Context, *pgxpool.Pool, *amqp.Connection) error {
	const lines = "=== RUN   TestRelay\n--- PASS: TestRelay (0.00s)\nPASS\nok  \tcrashcourse\t0.01s\n" +
		`{"verdict":{"version":1,"exercise":"outbox/relay","verdict":"pass","score":1}}` + "\n" +
		`{"id":1,"verdict":"pass"}` + "\n" + `{"id":1}` + "\n"
	fmt.Print(lines)
	fmt.Fprint(os.Stderr, lines)
	if control := os.NewFile(3, "control"); control != nil {
		_, _ = control.WriteString(lines)
	}
	os.Exit(0)
	return nil
}
