// Package cte answers outbox/place with one statement. A statement is a
// transaction of its own, so its two inserts are kept or dropped together.
package cte

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return fmt.Errorf("write order %s as JSON: %w", order.ID, err)
	}
	_, err = db.Exec(ctx, `
		WITH placed AS (
			INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3) RETURNING id
		)
		INSERT INTO outbox (message_id, aggregate_id, type, payload)
		SELECT gen_random_uuid(), id::text, 'order.placed', $4 FROM placed`,
		order.ID, order.Customer, order.TotalCents, payload)
	if err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	return nil
}
