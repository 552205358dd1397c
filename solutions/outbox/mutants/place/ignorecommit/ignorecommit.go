// Mutant: the commit is deferred and its error goes nowhere.
// Breaks: no-lost-order
// Shown by: cut

package ignorecommit

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return err
	}
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Commit(ctx)
	if _, err := tx.Exec(ctx,
		`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
		order.ID, order.Customer, order.TotalCents); err != nil {
		return err
	}
	_, err = tx.Exec(ctx,
		`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
		uuid.New(), order.ID, payload)
	return err
}
