package breaker

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Parked is a request that was put aside.
type Parked struct {
	Request
	Attempts           int
	Reason             string // the last error
	StoredAt, ParkedAt time.Time
}

// ListParked returns up to limit requests that are parked, in the order in which
// they were.
func (q *Queue) ListParked(ctx context.Context, limit int) ([]Parked, error) {
	rows, err := q.pool.Query(ctx, `
		SELECT key, body, attempts, coalesce(reason, ''), stored_at, settled_at FROM breaker_requests
		WHERE queue = $1 AND state = 'parked' ORDER BY settled_at LIMIT $2`, q.o.Name, limit)
	if err != nil {
		return nil, fmt.Errorf("breaker: list the parked requests: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Parked, err error) {
		return p, row.Scan(&p.Key, &p.Body, &p.Attempts, &p.Reason, &p.StoredAt, &p.ParkedAt)
	})
	if err != nil {
		return nil, fmt.Errorf("breaker: list the parked requests: %w", err)
	}
	return all, nil
}

// Resume queues the parked requests with these keys again, or all of them if there
// are no keys, and returns how many. Their attempts are counted anew; their keys
// stay. It is for a person who has mended the cause. To give a request up, delete its
// row.
func (q *Queue) Resume(ctx context.Context, keys ...string) (resumed int, err error) {
	tag, err := q.pool.Exec(ctx, `
		UPDATE breaker_requests SET state = 'pending', attempts = 0, settled_at = NULL, next_attempt_at = now()
		WHERE queue = $1 AND state = 'parked' AND ($2::text[] IS NULL OR key = ANY($2))`, q.o.Name, keys)
	if err != nil {
		return 0, fmt.Errorf("breaker: resume parked requests: %w", err)
	}
	return int(tag.RowsAffected()), nil
}
