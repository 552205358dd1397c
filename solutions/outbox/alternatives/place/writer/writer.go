// Package writer answers outbox/place with a goroutine that owns one
// connection and stores one order after the other. A broken connection is given
// back, and the next order gets another one.
package writer

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)

type job struct {
	ctx    context.Context
	db     *pgxpool.Pool
	order  outbox.Order
	result chan error
}

var start = sync.OnceValue(func() chan job {
	jobs := make(chan job)
	go write(jobs)
	return jobs
})

// Place stores the order and its event.
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error {
	result := make(chan error, 1)
	select {
	case start() <- job{ctx, db, order, result}:
	case <-ctx.Done():
		return fmt.Errorf("place order %s: %w", order.ID, ctx.Err())
	}
	// The writer answers when ctx ends too: its statements run under it.
	if err := <-result; err != nil {
		return fmt.Errorf("place order %s: %w", order.ID, err)
	}
	return nil
}

func write(jobs <-chan job) {
	var conn *pgxpool.Conn
	for j := range jobs {
		var err error
		if conn != nil && conn.Conn().IsClosed() {
			conn.Release()
			conn = nil
		}
		if conn == nil {
			if conn, err = j.db.Acquire(j.ctx); err != nil {
				conn = nil
				j.result <- err
				continue
			}
		}
		j.result <- store(j.ctx, conn, j.order)
	}
}

func store(ctx context.Context, conn *pgxpool.Conn, order outbox.Order) error {
	payload, err := json.Marshal(order)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		rows := [][]any{
			{`INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)`, order.ID, order.Customer, order.TotalCents},
			{`INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES (gen_random_uuid(), $1, 'order.placed', $2)`, order.ID, payload},
		}
		for _, row := range rows {
			if _, err := tx.Exec(ctx, row[0].(string), row[1:]...); err != nil {
				return err
			}
		}
		return nil
	})
}
