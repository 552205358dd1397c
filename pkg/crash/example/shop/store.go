package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// execer is a pool or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// store stores an order, and returns false when it is there already.
func store(ctx context.Context, db execer, o order) (isNew bool, err error) {
	tag, err := db.Exec(ctx, "INSERT INTO orders (id, cents) VALUES ($1, $2) ON CONFLICT DO NOTHING", o.ID, o.Cents)
	if err != nil {
		return false, fmt.Errorf("store the order: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}
