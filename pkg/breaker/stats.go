package breaker

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// counts are what a queue has done since it was made.
type counts struct {
	attempts, done, retried, rejected, parked, failed atomic.Uint64
}

// Stats are the figures to watch.
type Stats struct {
	// Queued is how many requests are stored and not settled, those under way
	// included.
	Queued int64
	// Oldest is the age of the first of them, 0 if there is none. This is the one
	// to alert on.
	Oldest time.Duration
	// Parked is how many are put aside and wait for a person.
	Parked int64
	// State is that of this process's circuit.
	State State

	// Attempts counts the calls made, Done the requests marked as done, Retried
	// the attempts after which another one was due, Rejected those that the
	// breaker or the bulkhead did not let through, SetAside the requests that were
	// parked, and Failed the errors of the database: all by this queue, since it
	// was made.
	Attempts, Done, Retried, Rejected, SetAside, Failed uint64
}

// Stats reads Queued, Oldest and Parked from the database; the rest is this
// process's own. It reads the whole index of what is queued, so call it every few
// seconds, not more often. It may be called whether the queue runs or not.
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	s := Stats{
		State:    q.b.State(),
		Attempts: q.counts.attempts.Load(),
		Done:     q.counts.done.Load(),
		Retried:  q.counts.retried.Load(),
		Rejected: q.counts.rejected.Load(),
		SetAside: q.counts.parked.Load(),
		Failed:   q.counts.failed.Load(),
	}
	var oldest float64
	err := q.pool.QueryRow(ctx, `
		SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(stored_at))::float8, 0),
		       (SELECT count(*) FROM breaker_requests WHERE queue = $1 AND state = 'parked')
		FROM breaker_requests WHERE queue = $1 AND state = 'pending'`, q.o.Name).Scan(&s.Queued, &oldest, &s.Parked)
	if err != nil {
		return Stats{}, fmt.Errorf("breaker: count the requests: %w", err)
	}
	s.Oldest = time.Duration(oldest * float64(time.Second))
	return s, nil
}
