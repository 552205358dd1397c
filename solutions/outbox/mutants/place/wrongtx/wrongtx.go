// Mutant: the event is inserted through the pool and not through the transaction, so it is committed on its own.
// Breaks: no-phantom-event
// Shown by: kill

package wrongtx

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx,
			`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
			order.ID, order.Customer, order.TotalCents); err != nil {
			return err
		}
		_, err := db.Exec(ctx,
			`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
			uuid.New(), order.ID, payload)
		return err
	})
}
