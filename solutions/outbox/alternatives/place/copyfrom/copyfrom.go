// Package copyfrom answers outbox/place with COPY inside a transaction, as a
// service does that places many orders at once. The event goes in first: inside
// one transaction the order of the writes means nothing.
package copyfrom

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	orderID, err := uuid.Parse(order.ID)
	if err != nil {
		return fmt.Errorf("order ID %q: %w", order.ID, err)
	}
	messageID, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make a message ID: %w", err)
	}
	tx, err := db.Begin(ctx)
	if err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	defer tx.Rollback(ctx) // does nothing after a commit
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"outbox"},
		[]string{"message_id", "aggregate_id", "type", "payload"},
		pgx.CopyFromRows([][]any{{messageID, order.ID, "order.placed", order}})); err != nil {
		return fmt.Errorf("store the event of order %s: %w", order.ID, err)
	}
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"orders"},
		[]string{"id", "customer", "total_cents"},
		pgx.CopyFromRows([][]any{{orderID, order.Customer, order.TotalCents}})); err != nil {
		return fmt.Errorf("store order %s: %w", order.ID, err)
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit order %s: %w", order.ID, err)
	}
	return nil
}
