package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/pkg/exercise"
)

// Order is an order that a customer places. Its JSON form is the payload of
// the order.placed event.
type Order struct {
	ID         string `json:"order_id"` // a UUID, chosen by the customer's client
	Customer   string `json:"customer"`
	TotalCents int64  `json:"total_cents"`
}

// Place is the starter answer of outbox/place.
//
// Place stores the order and the event that announces it, so that whatever
// happens either both exist or neither does:
//
//   - one row in orders, with status pending;
//   - one row in outbox: a message_id of your choice (a new UUID), the order's
//     ID as aggregate_id, type order.placed, the order as JSON as payload, and
//     published_at left NULL.
//
// It returns nil when both are stored for good, and an error otherwise. After an
// error, or when the process dies, nobody calls Place for that order again. The
// orders that follow are placed as usual.
func Place(ctx context.Context, db *pgxpool.Pool, order Order) error {
	return exercise.ErrNotImplemented // your code
}

// CheckPlace judges an answer to outbox/place and fails t if it does not pass.
func CheckPlace(t testing.TB, place func(context.Context, *pgxpool.Pool, Order) error) {
	t.Helper()
	exercise.Check(t, "outbox/place", func(ctx context.Context, p *exercise.Process, arg json.RawMessage) error {
		var order Order
		if err := json.Unmarshal(arg, &order); err != nil {
			return fmt.Errorf("outbox: read the order: %w", err)
		}
		db, err := p.Postgres(ctx)
		if err != nil {
			return err
		}
		return place(ctx, db, order)
	})
}
