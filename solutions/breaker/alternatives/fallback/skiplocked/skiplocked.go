// Package skiplocked is an alternative answer to breaker/fallback: several workers that lease rows by SKIP LOCKED, keys made at random, and clients who do not wait on a busy row.
package skiplocked

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/errgroup"

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

// Fallback leases each row before it tries: pay the one that it inserts, a worker one
// that is due.
func Fallback(s breaker.Settings, db *pgxpool.Pool, charge func(context.Context, string, breaker.Payment) error) (
	pay func(context.Context, breaker.Payment) (breaker.Status, error), work func(context.Context) error) {
	c := &checkout{s: s, db: db, charge: charge, cb: newBreaker(s)}
	return c.pay, c.work
}

func (c *checkout) lease() time.Duration { return 2*c.s.Timeout + 200*time.Millisecond }

func (c *checkout) pay(ctx context.Context, p breaker.Payment) (breaker.Status, error) {
	key := uuid.NewString()
	var mine string
	var status breaker.Status
	err := c.db.QueryRow(ctx, `WITH new AS (
			INSERT INTO payments (id, cents, key, due_at) VALUES ($1, $2, $3, now() + $4) ON CONFLICT DO NOTHING RETURNING key, status)
		SELECT key, status FROM new UNION ALL SELECT key, status FROM payments WHERE id = $1 LIMIT 1`,
		p.ID, p.Cents, key, c.lease()).Scan(&mine, &status)
	if errors.Is(err, pgx.ErrNoRows) { // it was inserted meanwhile
		return breaker.Queued, nil
	}
	if err != nil || mine != key {
		return status, err
	}
	return c.settle(ctx, p, key), nil
}

func (c *checkout) settle(ctx context.Context, p breaker.Payment, key string) breaker.Status {
	status := c.ask(ctx, key, p)
	op, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.s.Timeout)
	defer cancel()
	if _, err := c.db.Exec(op, `UPDATE payments SET status = $2, due_at = now() + $3 WHERE id = $1 AND status = 'queued'`, p.ID, status, c.s.Retry); err != nil {
		return breaker.Queued
	}
	return status
}

func (c *checkout) work(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range 2 {
		g.Go(func() error { return c.worker(ctx) })
	}
	return g.Wait()
}

func (c *checkout) worker(ctx context.Context) error {
	for ctx.Err() == nil {
		var p breaker.Payment
		var key string
		err := c.db.QueryRow(ctx, `UPDATE payments SET due_at = now() + $1 WHERE id = (
				SELECT id FROM payments WHERE status = 'queued' AND due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
			RETURNING id, cents, key`, c.lease()).Scan(&p.ID, &p.Cents, &key)
		switch {
		case err == nil:
			c.settle(ctx, p, key)
			continue
		case !errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("lease a payment: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(150 * time.Millisecond):
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
