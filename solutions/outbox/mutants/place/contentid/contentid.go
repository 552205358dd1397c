// Mutant: the message_id is derived from what is ordered and not from the order, and ON CONFLICT DO NOTHING drops the event of a second, equal order.
// Breaks: no-lost-event
// Shown by: two orders that differ by their ID only

package contentid

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return err
	}
	// Derived and not random, so that the same event has the same message_id.
	content := order.Customer + "|" + strconv.FormatInt(order.TotalCents, 10) + "|order.placed"
	messageID := uuid.NewSHA1(uuid.NameSpaceOID, []byte(content))
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx,
			`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
			order.ID, order.Customer, order.TotalCents); err != nil {
			return err
		}
		_, err := tx.Exec(ctx,
			`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)
			 ON CONFLICT (message_id) DO NOTHING`,
			messageID, order.ID, payload)
		return err
	})
}
