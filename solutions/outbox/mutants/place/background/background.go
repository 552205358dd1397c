// Mutant: nil is returned at once and a goroutine stores the order later.
// Breaks: no-lost-order
// Shown by: kill

package background

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

// Place starts to store the order and its event.
func Place(_ context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return err
	}
	go func() {
		ctx := context.Background()
		messageID := uuid.New()
		for {
			err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
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
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return nil
}
