package breaker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/internal/backoff"
	"crashcourse/pkg/internal/lifecycle"
	"crashcourse/pkg/postgres"
)

// ErrStopTimeout is wrapped by the error of [Queue.Run] when it could not finish its
// work within StopTimeout of its context's end. Nothing is lost: when the leases are
// over the requests are tried again.
var ErrStopTimeout = errors.New("breaker: the queue did not stop in time")

// Run makes attempts of the requests that are due, until ctx ends. Then it begins
// nothing new, lets the attempts that have begun end, writes down how, and returns
// nil, or an error that wraps [ErrStopTimeout].
//
// While the circuit is open it takes no request. It tries again, after a growing
// wait, when the database fails, and returns an error before ctx ends only if that
// cannot help: a missing table or right. Run it in as many processes as you like. It
// may be called again after it has returned, not before.
func (q *Queue) Run(ctx context.Context) error {
	if !q.running.CompareAndSwap(false, true) {
		return errors.New("breaker: Run is running already")
	}
	defer q.running.Store(false)
	q.log.Info("breaker queue starts", "queue", q.o.Name)
	err := lifecycle.Run(ctx, lifecycle.Stop{Timeout: q.o.StopTimeout, Late: ErrStopTimeout, Drop: func() {}},
		func(soft, hard context.Context, g *errgroup.Group) {
			g.Go(func() error {
				if err := q.prepare(soft); err != nil || soft.Err() != nil {
					return err
				}
				for range q.o.Concurrency {
					g.Go(func() error { return q.work(soft, hard) })
				}
				if q.o.Keep > 0 {
					g.Go(func() error { return q.clean(soft) })
				}
				return nil
			})
		})
	q.log.Info("breaker queue stopped", "queue", q.o.Name, "error", err)
	return err
}

// work makes one attempt after the other.
func (q *Queue) work(soft, hard context.Context) error {
	for failures := 0; soft.Err() == nil; {
		if q.b.State() == Open {
			q.rest(soft)
			continue
		}
		a, err := q.claim(hard, dueSQL)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			failures = 0
			q.rest(soft)
			continue
		case fatal(err):
			return err
		case err != nil:
			failures++
			q.again(soft, "claim a request", err, failures)
			continue
		}
		failures = 0
		r, _ := q.attempt(hard, a) // the row says all
		if errors.Is(r.Why, ErrOpen) || errors.Is(r.Why, ErrFull) {
			q.rest(soft)
		}
	}
	return nil
}

// rest waits until it is time to look again.
func (q *Queue) rest(ctx context.Context) {
	backoff.Sleep(ctx, backoff.Wait(1, q.o.PollInterval, q.o.PollInterval))
}

// prepare makes the table if there is none.
func (q *Queue) prepare(ctx context.Context) error {
	for failures := 1; ctx.Err() == nil; failures++ {
		err := q.prepareOnce(ctx)
		if err == nil || fatal(err) {
			return err
		}
		q.again(ctx, "prepare the database", err, failures)
	}
	return nil
}

func (q *Queue) prepareOnce(ctx context.Context) error {
	op, cancel := context.WithTimeout(ctx, q.o.Timeout)
	defer cancel()
	var table bool
	if err := q.pool.QueryRow(op, "SELECT to_regclass('breaker_requests') IS NOT NULL").Scan(&table); err != nil {
		return fmt.Errorf("breaker: look for the table: %w", err)
	}
	if !table {
		return Migrate(ctx, q.pool)
	}
	return nil
}

// clean deletes, now and then, what was kept for long enough.
func (q *Queue) clean(ctx context.Context) error {
	for failures := 0; backoff.Sleep(ctx, backoff.Wait(1, q.o.CleanInterval, q.o.CleanInterval)); {
		err := q.cleanOnce(ctx)
		switch {
		case fatal(err):
			return err
		case err != nil && ctx.Err() == nil:
			failures++
			q.again(ctx, "delete requests that are done", err, failures)
		default:
			failures = 0
		}
	}
	return nil
}

func (q *Queue) cleanOnce(ctx context.Context) error {
	const batch = 1000
	for {
		op, cancel := context.WithTimeout(ctx, q.o.Timeout)
		tag, err := q.pool.Exec(op, `
			DELETE FROM breaker_requests WHERE (queue, key) IN (
				SELECT queue, key FROM breaker_requests
				WHERE queue = $1 AND state = 'done' AND settled_at < now() - $2::interval
				ORDER BY settled_at LIMIT $3)`, q.o.Name, q.o.Keep, batch)
		cancel()
		if err != nil {
			return fmt.Errorf("breaker: delete requests that are done: %w", err)
		}
		if tag.RowsAffected() < batch {
			return nil
		}
	}
}

// again tells of an error and waits before the next try.
func (q *Queue) again(ctx context.Context, what string, err error, failures int) {
	if ctx.Err() != nil {
		return
	}
	wait := backoff.Wait(failures, min(100*time.Millisecond, q.o.MaxRetry), min(15*time.Second, q.o.MaxRetry))
	q.counts.failed.Add(1)
	q.log.Warn("breaker: could not "+what+", trying again", "queue", q.o.Name, "error", err, "failures", failures, "wait", wait)
	if f := q.o.Hooks.Failed; f != nil {
		f(err)
	}
	backoff.Sleep(ctx, wait)
}

// fatal tells that it is of no use to try again: something is missing or forbidden.
func fatal(err error) bool {
	state := postgres.SQLState(err)
	return len(state) == 5 && state[:2] == "42"
}
