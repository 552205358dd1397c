// Mutant: BEGIN and COMMIT are sent as plain statements and errors between them ignored; COMMIT of a failed transaction answers ROLLBACK, which is no error.
// Breaks: no-lost-order
// Shown by: fail

package commitstatement

import (
	"context"
	"encoding/json"
	"log"

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
	conn, err := db.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `BEGIN`); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx,
		`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
		order.ID, order.Customer, order.TotalCents); err != nil {
		log.Printf("order %s: %v", order.ID, err)
	}
	if _, err := conn.Exec(ctx,
		`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
		uuid.New(), order.ID, payload); err != nil {
		log.Printf("event of order %s: %v", order.ID, err)
	}
	_, err = conn.Exec(ctx, `COMMIT`)
	return err
}
