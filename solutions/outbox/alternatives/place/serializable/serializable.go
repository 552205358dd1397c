// Package serializable answers outbox/place with a serializable transaction
// through database/sql, run again when the server could not serialize it.
package serializable

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"crashcourse/exercises/outbox"
)

const attempts = 5

// Place stores the order and its event.
func Place(ctx context.Context, pool *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return fmt.Errorf("write order %s as JSON: %w", order.ID, err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	for range attempts {
		err = place(ctx, db, order, payload)
		// This error alone says for sure that nothing was kept.
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "40001" {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	return nil
}

func place(ctx context.Context, db *sql.DB, order outbox.Order, payload []byte) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after a commit
	if _, err := tx.ExecContext(ctx,
		`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
		order.ID, order.Customer, order.TotalCents); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx,
		`INSERT INTO outbox (message_id, aggregate_id, type, payload)
		 VALUES (gen_random_uuid(), $1, 'order.placed', $2)`,
		order.ID, string(payload)); err != nil {
		return err
	}
	return tx.Commit()
}
