// Package plpgsql answers outbox/place with a function in the database. The
// call is one statement, so all that the function does is one transaction.
package plpgsql

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

var (
	mu    sync.Mutex
	ready bool
)

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	if err := install(ctx, db); err != nil {
		return fmt.Errorf("install the function: %w", err)
	}
	if _, err := db.Exec(ctx, `SELECT place_order($1, $2, $3)`, order.ID, order.Customer, order.TotalCents); err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	return nil
}

// install makes the function, once in each process.
func install(ctx context.Context, db *pgxpool.Pool) error {
	mu.Lock()
	defer mu.Unlock()
	if ready {
		return nil
	}
	_, err := db.Exec(ctx, `
		CREATE OR REPLACE FUNCTION place_order(id uuid, customer text, total_cents bigint)
		RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO orders VALUES (id, customer, total_cents);
			INSERT INTO outbox (message_id, aggregate_id, type, payload)
			VALUES (gen_random_uuid(), id, 'order.placed', jsonb_build_object(
				'order_id', id, 'customer', customer, 'total_cents', total_cents));
		END $$`)
	ready = err == nil
	return err
}
