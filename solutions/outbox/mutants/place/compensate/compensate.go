// Mutant: instead of a transaction, the order is deleted again when its event could not be stored.
// Breaks: no-lost-event
// Shown by: kill

package compensate

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the order and its event. It never waits long for an answer and
// cleans up after every error; only a dead process cannot.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return err
	}
	insert := func(sql string, args ...any) error {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		_, err := db.Exec(ctx, sql, args...)
		return err
	}
	err = insert(`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
		order.ID, order.Customer, order.TotalCents)
	if err == nil {
		err = insert(`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
			uuid.New(), order.ID, payload)
	}
	if err == nil {
		return nil
	}
	for range 20 {
		_, undoErr := db.Exec(ctx, `DELETE FROM outbox WHERE aggregate_id = $1`, order.ID)
		if undoErr == nil {
			_, undoErr = db.Exec(ctx, `DELETE FROM orders WHERE id = $1`, order.ID)
		}
		if undoErr == nil {
			break
		}
		err = errors.Join(err, undoErr)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
