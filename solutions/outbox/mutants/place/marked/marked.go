// Mutant: the event is stored as published already, so no relay ever takes it.
// Breaks: event-intact
// Shown by: none

package marked

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
		_, err := tx.Exec(ctx,
			`INSERT INTO outbox (message_id, aggregate_id, type, payload, published_at)
			 VALUES ($1, $2, 'order.placed', $3, now())`,
			uuid.New(), order.ID, payload)
		return err
	})
}
