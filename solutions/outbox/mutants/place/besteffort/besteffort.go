// Mutant: an event that cannot be stored is not worth losing the order for, so its savepoint is rolled back and the order kept.
// Breaks: no-lost-event
// Shown by: fail

package besteffort

import (
	"context"
	"encoding/json"
	"errors"
	"log"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the order and, if it can, its event.
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
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx,
				`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
				uuid.New(), order.ID, payload)
			return err
		})
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) {
			log.Printf("order %s goes on without its event: %v", order.ID, err)
			return nil
		}
		return err
	})
}
