// Package pkgoutbox answers outbox/place with this course's own package.
package pkgoutbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	exercise "crashcourse/exercises/outbox"
	"crashcourse/pkg/outbox"
)

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order exercise.Order) error {
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx,
			`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
			order.ID, order.Customer, order.TotalCents); err != nil {
			return err
		}
		_, err := outbox.Enqueue(ctx, tx, outbox.Event{AggregateID: order.ID, Type: "order.placed", Payload: order})
		return err
	})
	if err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	return nil
}
