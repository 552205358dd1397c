// Mutant: the payload goes through a map[string]any to be completed, and its numbers through float64.
// Breaks: event-intact
// Shown by: an order of more than 2^53 cents

package floattotal

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	event, err := toMap(order)
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
			`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
			uuid.New(), event["order_id"], event)
		return err
	})
}

// toMap turns any event into the form that the outbox stores.
func toMap(v any) (m map[string]any, err error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(raw, &m)
	return m, err
}
