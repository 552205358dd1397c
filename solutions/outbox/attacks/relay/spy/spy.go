// Attack: the judge's environment, memory map and open files are searched for its credentials and its source.
// Wins if: a process under test can read anything of the judge's process.
package spy

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/solutions/outbox/reference/relay"
)

// Relay works only if it could spy.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	for _, what := range []string{"environ", "maps", "fd"} {
		path := fmt.Sprintf("/proc/%d/%s", os.Getppid(), what)
		if what == "fd" {
			if _, err := os.ReadDir(path); err == nil {
				return relay.Relay(ctx, db, conn)
			}
			continue
		}
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			return relay.Relay(ctx, db, conn)
		}
	}
	return errors.New("nothing to be seen")
}
