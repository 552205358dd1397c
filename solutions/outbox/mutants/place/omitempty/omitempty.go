// Mutant: the event has a struct of its own, whose omitempty drops a total of zero (and an empty customer).
// Breaks: event-intact
// Shown by: an order of no cents

package omitempty

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

type placed struct {
	OrderID    string `json:"order_id"`
	Customer   string `json:"customer,omitempty"`
	TotalCents int64  `json:"total_cents,omitempty"`
}

func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	payload, err := json.Marshal(placed{OrderID: order.ID, Customer: order.Customer, TotalCents: order.TotalCents})
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx,
			`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`,
			order.ID, order.Customer, order.TotalCents); err != nil {
			return err
		}
		_, err := tx.Exec(ctx,
			`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES ($1, $2, 'order.placed', $3)`,
			uuid.New(), order.ID, payload)
		return err
	})
}
