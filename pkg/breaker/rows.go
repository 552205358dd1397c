package breaker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// All times are the database's. now() is that of the transaction, and unlike
// clock_timestamp() can be looked for in an index; each statement here is a
// transaction of its own, or the first one of it.
const (
	storeSQL = `
INSERT INTO breaker_requests (queue, key, body, attempts, claim, next_attempt_at)
VALUES ($1, $2, $3, 1, 1, now() + $4::interval)
ON CONFLICT DO NOTHING
RETURNING key, body, attempts, claim, stored_at`

	enqueueSQL = `
INSERT INTO breaker_requests (queue, key, body, next_attempt_at)
VALUES ($1, $2, $3, clock_timestamp() + $4::interval)
ON CONFLICT DO NOTHING`

	firstSQL = `
UPDATE breaker_requests SET attempts = attempts + 1, claim = claim + 1, next_attempt_at = now() + $2::interval
WHERE queue = $1 AND key = $3 AND state = 'pending' AND claim = 0
RETURNING key, body, attempts, claim, stored_at`

	// SKIP LOCKED: two workers that look at the same time get different rows. The
	// lock lasts for this statement; from then on the lease keeps others away.
	dueSQL = `
WITH due AS MATERIALIZED (
    SELECT queue, key FROM breaker_requests
    WHERE queue = $1 AND state = 'pending' AND next_attempt_at <= now()
    ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE breaker_requests r SET attempts = attempts + 1, claim = claim + 1, next_attempt_at = now() + $2::interval
FROM due WHERE r.queue = due.queue AND r.key = due.key
RETURNING r.key, r.body, r.attempts, r.claim, r.stored_at`

	// Whoever knows that it is done may say so, whosever the claim is now.
	doneSQL = `
UPDATE breaker_requests SET state = 'done', settled_at = now(), answer = $3, reason = NULL
WHERE queue = $1 AND key = $2 AND state <> 'done'`

	parkSQL = `
UPDATE breaker_requests SET state = 'parked', settled_at = now(), reason = $4
WHERE queue = $1 AND key = $2 AND state = 'pending' AND claim = $3`

	retrySQL = `
UPDATE breaker_requests SET next_attempt_at = now() + $4::interval, attempts = attempts - $5, reason = $6
WHERE queue = $1 AND key = $2 AND state = 'pending' AND claim = $3`
)

// store stores a request, with the first claim on it. The error is pgx.ErrNoRows if
// its key is known.
func (q *Queue) store(ctx context.Context, r Request) (Attempt, error) {
	if err := checkKey(r.Key); err != nil {
		return Attempt{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, q.o.Timeout)
	defer cancel()
	a, err := scan(q.pool.QueryRow(ctx, storeSQL, q.o.Name, r.Key, notNil(r.Body), q.o.Lease))
	if err != nil {
		return a, fmt.Errorf("breaker: store a request: %w", err)
	}
	return a, nil
}

// claim takes a request by a statement that finds one. The error is pgx.ErrNoRows if
// it finds none.
func (q *Queue) claim(ctx context.Context, sql string, args ...any) (Attempt, error) {
	ctx, cancel := context.WithTimeout(ctx, q.o.Timeout)
	defer cancel()
	a, err := scan(q.pool.QueryRow(ctx, sql, append([]any{q.o.Name, q.o.Lease}, args...)...))
	if err != nil {
		return a, fmt.Errorf("breaker: claim a request: %w", err)
	}
	return a, nil
}

func scan(row pgx.Row) (a Attempt, err error) {
	return a, row.Scan(&a.Key, &a.Body, &a.Number, &a.claim, &a.StoredAt)
}

// done marks a request as done, and has its effect if it was not.
func (q *Queue) done(ctx context.Context, a Attempt, answer []byte) error {
	_, err := q.settle(ctx, func(tx pgx.Tx) error { return q.o.Done(ctx, tx, a, answer) }, q.o.Done != nil,
		doneSQL, q.o.Name, a.Key, notNil(answer))
	return err
}

// park puts a request aside. It does not if the claim on it is lost.
func (q *Queue) park(ctx context.Context, a Attempt, reason error) (parked bool, err error) {
	return q.settle(ctx, func(tx pgx.Tx) error { return q.o.Parked(ctx, tx, a, reason) }, q.o.Parked != nil,
		parkSQL, q.o.Name, a.Key, a.claim, text(reason))
}

// settle changes a row, and if it did has the effect in the same transaction.
func (q *Queue) settle(ctx context.Context, effect func(pgx.Tx) error, has bool, sql string, args ...any) (changed bool, err error) {
	if !has {
		tag, err := q.pool.Exec(ctx, sql, args...)
		return tag.RowsAffected() > 0, err
	}
	err = pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, sql, args...)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		changed = true
		return guard(func() error { return effect(tx) })
	})
	return changed && err == nil, err
}

// guard makes an error of a panic.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
	}()
	return f()
}

// retry has a request tried again after a wait.
func (q *Queue) retry(ctx context.Context, a Attempt, reason error, wait time.Duration) error {
	_, err := q.pool.Exec(ctx, retrySQL, q.o.Name, a.Key, a.claim, wait, 0, text(reason))
	return err
}

// putBack is retry for an attempt that does not count.
func (q *Queue) putBack(ctx context.Context, a Attempt, reason error, wait time.Duration) error {
	_, err := q.pool.Exec(ctx, retrySQL, q.o.Name, a.Key, a.claim, wait, 1, text(reason))
	return err
}

// text makes PostgreSQL able to store what an error says.
func text(err error) string {
	return strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "\uFFFD"), "\x00", "\uFFFD")
}
