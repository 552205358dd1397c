// Package batch answers outbox/place with a pipeline: both statements travel
// together and are answered together. Without a BEGIN, PostgreSQL runs a
// pipeline as one transaction.
package batch

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return fmt.Errorf("write order %s as JSON: %w", order.ID, err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make a message ID: %w", err)
	}
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
		order.ID, order.Customer, order.TotalCents)
	batch.Queue(`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
		id, order.ID, payload)
	// Close reads every answer and returns the first error.
	if err := db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	return nil
}
