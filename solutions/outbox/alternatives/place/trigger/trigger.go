// Package trigger answers outbox/place with a trigger: the table orders itself
// writes the event of every order that enters it.
package trigger

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

var (
	mu    sync.Mutex
	ready bool
)

// Place stores the order; the trigger stores its event in the same transaction.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	if err := install(ctx, db); err != nil {
		return fmt.Errorf("install the trigger: %w", err)
	}
	_, err := db.Exec(ctx, `INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
		order.ID, order.Customer, order.TotalCents)
	if err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	return nil
}

// install makes the trigger, once in each process. Where it stands already, it
// is replaced by the same.
func install(ctx context.Context, db *pgxpool.Pool) error {
	mu.Lock()
	defer mu.Unlock()
	if ready {
		return nil
	}
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			CREATE OR REPLACE FUNCTION announce_order() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN
				INSERT INTO outbox (message_id, aggregate_id, type, payload)
				VALUES (gen_random_uuid(), NEW.id::text, 'order.placed', jsonb_build_object(
					'order_id', NEW.id, 'customer', NEW.customer, 'total_cents', NEW.total_cents));
				RETURN NULL;
			END $$`)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			CREATE OR REPLACE TRIGGER announce_order AFTER INSERT ON orders
			FOR EACH ROW EXECUTE FUNCTION announce_order()`)
		return err
	})
	ready = err == nil
	return err
}
