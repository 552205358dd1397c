// Package ownconn answers outbox/place with a connection of its own for every
// order, and with BEGIN and COMMIT written out.
package ownconn

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the order and its event.
func Place(ctx context.Context, _ *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return fmt.Errorf("write order %s as JSON: %w", order.ID, err)
	}
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	// Leaving early closes the connection, and the server drops the transaction.
	defer conn.Close(ctx)
	for _, step := range []struct {
		sql  string
		args []any
	}{
		{`BEGIN`, nil},
		{`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
			[]any{order.ID, order.Customer, order.TotalCents}},
		{`INSERT INTO outbox (message_id, aggregate_id, type, payload)
		  VALUES (gen_random_uuid(), $1, 'order.placed', $2)`,
			[]any{order.ID, payload}},
		{`COMMIT`, nil},
	} {
		// Every error ends it, or COMMIT could turn into a silent ROLLBACK.
		if _, err := conn.Exec(ctx, step.sql, step.args...); err != nil {
			return fmt.Errorf("place order %s: %w", order.ID, err)
		}
	}
	return nil
}
