// Mutant: the tables are dropped, so that no order is without its event.
// Breaks: no-lost-order
// Shown by: none

package droptables

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place drops the tables.
func Place(ctx context.Context, db *pgxpool.Pool, _ outbox.Order) error {
	_, _ = db.Exec(ctx, `DROP TABLE IF EXISTS orders, outbox`)
	return nil
}
