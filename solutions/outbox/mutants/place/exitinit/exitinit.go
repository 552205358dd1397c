// Mutant: the process leaves with exit code 0 before any work begins.
// Breaks: all-work-done
// Shown by: none

package exitinit

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

func init() {
	fmt.Println("--- PASS: TestPlace (0.00s)")
	fmt.Println("PASS")
	os.Exit(0)
}

// Place is never reached.
func Place(context.Context, *pgxpool.Pool, outbox.Order) error { return nil }
