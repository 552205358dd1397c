// Package place is the reference answer to outbox/place.
package place

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the order and its event in one transaction. The database makes
// both appear at the same moment, the COMMIT, or neither; no order of two
// separate writes can do that, since the process may die between them.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return fmt.Errorf("write order %s as JSON: %w", order.ID, err)
	}
	// BeginFunc commits when the function returns nil. Otherwise, or when the
	// COMMIT fails, nothing is kept and the error comes back here.
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx,
			`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
			order.ID, order.Customer, order.TotalCents); err != nil {
			return err
		}
		// The message ID is made here, once, and stored: however often the event
		// is published later, it is the same message to those who receive it.
		_, err := tx.Exec(ctx,
			`INSERT INTO outbox (message_id, aggregate_id, type, payload)
			 VALUES (gen_random_uuid(), $1, 'order.placed', $2)`,
			order.ID, payload)
		return err
	})
	if err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	return nil
}
