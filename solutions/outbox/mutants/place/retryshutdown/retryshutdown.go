// Mutant: a server that says it shuts down is taken to have dropped the transaction, so the order is placed again with a second event.
// Breaks: no-phantom-event
// Shown by: shutdown

package retryshutdown

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	err := place(ctx, db, order)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "57P01" {
		err = place(ctx, db, order)
	}
	return err
}

func place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return err
	}
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx,
		`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`,
		order.ID, order.Customer, order.TotalCents); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx,
		`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
		uuid.New(), order.ID, payload); err != nil {
		return err
	}
	return tx.Commit(ctx)
}
