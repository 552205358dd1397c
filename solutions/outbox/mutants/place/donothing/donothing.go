// Mutant: nil is returned and nothing is done.
// Breaks: no-lost-order
// Shown by: none

package donothing

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place does nothing.
func Place(context.Context, *pgxpool.Pool, outbox.Order) error { return nil }
