// Package simple answers outbox/place with the simple protocol: two statements
// in one Query message, which PostgreSQL runs as one transaction.
package simple

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
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
		INSERT INTO orders (id, customer, total_cents) VALUES ($1::uuid, $2, $3);
		INSERT INTO outbox (message_id, aggregate_id, type, payload)
		VALUES (gen_random_uuid(), $1, 'order.placed', $4::jsonb)`,
		pgx.QueryExecModeSimpleProtocol,
		order.ID, order.Customer, order.TotalCents, string(payload))
	if err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	return nil
}
