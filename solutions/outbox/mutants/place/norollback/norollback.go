// Mutant: an error leaves the one connection inside its failed transaction, where every later statement fails too.
// Breaks: all-work-done
// Shown by: fail

package norollback

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

var conn *pgxpool.Conn

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return err
	}
	if conn == nil || conn.Conn().IsClosed() {
		if conn, err = db.Acquire(ctx); err != nil {
			return err
		}
	}
	if _, err := conn.Exec(ctx, `BEGIN`); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx,
		`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
		order.ID, order.Customer, order.TotalCents); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx,
		`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
		uuid.New(), order.ID, payload); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `COMMIT`)
	return err
}
