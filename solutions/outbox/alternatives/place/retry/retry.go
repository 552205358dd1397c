// Package retry answers outbox/place with attempts that may follow a lost
// connection, when nobody knows whether the COMMIT took effect. That is safe
// because a second attempt repeats the first one exactly: the message ID is
// chosen before, and a row that stands already stays as it is.
package retry

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

const attempts = 3

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return fmt.Errorf("write order %s as JSON: %w", order.ID, err)
	}
	messageID := uuid.New()
	for range attempts {
		err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx,
				`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`,
				order.ID, order.Customer, order.TotalCents); err != nil {
				return err
			}
			_, err := tx.Exec(ctx,
				`INSERT INTO outbox (message_id, aggregate_id, type, payload)
				 VALUES ($1, $2, 'order.placed', $3) ON CONFLICT (message_id) DO NOTHING`,
				messageID, order.ID, payload)
			return err
		})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("place order %s: %w", order.ID, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("place order %s: %w", order.ID, err)
}
