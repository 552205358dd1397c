// Mutant: the order and the event are two transactions, the event first so that none is lost.
// Breaks: no-phantom-event
// Shown by: kill

package eventfirst

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the event and then the order.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return err
	}
	if _, err := db.Exec(ctx,
		`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
		uuid.New(), order.ID, payload); err != nil {
		return err
	}
	_, err = db.Exec(ctx,
		`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
		order.ID, order.Customer, order.TotalCents)
	return err
}
