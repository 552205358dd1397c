// Package advisory is an alternative answer to breaker/fallback: one worker among all processes, by an advisory lock that its session holds, and no leases.
package advisory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sony/gobreaker/v2"

	"crashcourse/exercises/breaker"
)

type checkout struct {
	s      breaker.Settings
	db     *pgxpool.Pool
	charge func(context.Context, string, breaker.Payment) error
	cb     *gobreaker.CircuitBreaker[struct{}]
}

func newBreaker(s breaker.Settings) *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(s.Probes),
		Interval:     s.Window,
		BucketPeriod: s.Window / 10,
		Timeout:      s.Reset,
		ReadyToTrip: func(n gobreaker.Counts) bool {
			ended := int(n.TotalSuccesses + n.TotalFailures)
			return ended >= s.Volume && 100*int(n.TotalFailures) >= s.FailureRate*ended
		},
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, breaker.ErrDeclined) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
	})
}

// Fallback has pay try first and a single worker after it. Nothing keeps the two from
// trying the same row at once; that is what the key is for.
func Fallback(s breaker.Settings, db *pgxpool.Pool, charge func(context.Context, string, breaker.Payment) error) (
	pay func(context.Context, breaker.Payment) (breaker.Status, error), work func(context.Context) error) {
	c := &checkout{s: s, db: db, charge: charge, cb: newBreaker(s)}
	return c.pay, c.work
}

func (c *checkout) pay(ctx context.Context, p breaker.Payment) (status breaker.Status, err error) {
	_, err = c.db.Exec(ctx, `INSERT INTO payments (id, cents, key) VALUES ($1, $2, 'payment-' || $1) ON CONFLICT DO NOTHING`, p.ID, p.Cents)
	if err == nil {
		err = c.db.QueryRow(ctx, `SELECT status FROM payments WHERE id = $1`, p.ID).Scan(&status)
	}
	if err != nil || status != breaker.Queued {
		return status, err
	}
	return c.settle(ctx, c.db, p)
}

type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func (c *checkout) settle(ctx context.Context, db execer, p breaker.Payment) (breaker.Status, error) {
	status := c.ask(ctx, "payment-"+p.ID, p)
	_, err := db.Exec(context.WithoutCancel(ctx), `UPDATE payments SET status = $2, due_at = now() + $3 WHERE id = $1 AND status = 'queued'`, p.ID, status, c.s.Retry)
	return status, err
}

// work is the worker, if this session gets the lock.
func (c *checkout) work(ctx context.Context) error {
	conn, err := c.db.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect the worker: %w", err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(7)`); err != nil {
		return fmt.Errorf("become the worker: %w", err)
	}
	for ctx.Err() == nil {
		rows, _ := conn.Query(ctx, `SELECT id, cents FROM payments WHERE status = 'queued' AND due_at <= now() ORDER BY due_at`)
		due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[breaker.Payment])
		if err != nil {
			return fmt.Errorf("look for payments: %w", err)
		}
		for _, p := range due {
			if c.cb.State() == gobreaker.StateOpen {
				break
			}
			if _, err := c.settle(ctx, conn, p); err != nil {
				return fmt.Errorf("write down what came of a payment: %w", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// ask asks the service once.
func (c *checkout) ask(ctx context.Context, key string, p breaker.Payment) breaker.Status {
	_, err := c.cb.Execute(func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, c.s.Timeout)
		defer cancel()
		return struct{}{}, c.charge(ctx, key, p)
	})
	switch {
	case err == nil:
		return breaker.Charged
	case errors.Is(err, breaker.ErrDeclined):
		return breaker.Declined
	}
	return breaker.Queued
}
