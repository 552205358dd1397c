package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"crashcourse/pkg/internal/backoff"
)

// Rows are read in the order of seq, which is roughly the order in which they
// were published, until one is met that has to be kept. Rows that are still
// pending are passed over.
const cleanSQL = `
WITH chunk AS (
    SELECT seq, published_at < now() - $2::bigint * interval '1 ms' AS old
    FROM outbox WHERE seq > $1 ORDER BY seq LIMIT 1000
), gone AS (
    DELETE FROM outbox USING chunk WHERE outbox.seq = chunk.seq AND chunk.old RETURNING 1
)
SELECT coalesce(max(seq), 0), count(*), coalesce(bool_or(NOT old), false), (SELECT count(*) FROM gone)
FROM chunk`

// clean deletes what has been kept long enough, until ctx ends.
func (r *Relay) clean(ctx context.Context) error {
	for failures := 0; backoff.Sleep(ctx, r.o.CleanInterval); {
		n, err := Clean(ctx, r.pool, r.o.Keep)
		switch {
		case ctx.Err() != nil:
			return nil
		case fatal(err):
			return err
		case err != nil:
			failures++
			r.again(ctx, "delete old rows", err, failures)
		default:
			failures = 0
			if n > 0 {
				r.log.Debug("outbox: old rows deleted", "rows", n)
			}
		}
	}
	return nil
}

// Clean deletes the rows of events that were published more than keep ago, in
// batches of at most 1,000, and returns how many those were. A relay does so by
// itself; Clean is for those who would rather do it at night. Several may run at
// once.
func Clean(ctx context.Context, db Querier, keep time.Duration) (int64, error) {
	var deleted, seq int64
	for {
		var rows, gone int64
		var young bool
		if err := db.QueryRow(ctx, cleanSQL, seq, keep.Milliseconds()).Scan(&seq, &rows, &young, &gone); err != nil {
			return deleted, fmt.Errorf("outbox: delete the rows of published events: %w", err)
		}
		deleted += gone
		if rows < 1000 || young {
			break
		}
	}
	// An aggregate stays held for no reason once its events are gone.
	_, err := db.Exec(ctx, `DELETE FROM outbox_held h WHERE until < now()
		AND NOT EXISTS (SELECT FROM outbox o WHERE o.seq = h.seq AND o.published_at IS NULL)`)
	if err != nil {
		return deleted, fmt.Errorf("outbox: delete what is held for no reason: %w", err)
	}
	return deleted, nil
}

// Querier is a pool, a connection or a transaction.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}
