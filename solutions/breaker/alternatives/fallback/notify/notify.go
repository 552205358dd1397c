// Package notify is an alternative answer to breaker/fallback: pay only stores, and waits for a NOTIFY of what has become of the payment; the worker makes all calls.
package notify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

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
	wake   chan struct{} // something was stored

	mu      sync.Mutex
	waiting map[string][]chan breaker.Status // by payment
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

// Fallback has the worker make all calls, several at a time.
func Fallback(s breaker.Settings, db *pgxpool.Pool, charge func(context.Context, string, breaker.Payment) error) (
	pay func(context.Context, breaker.Payment) (breaker.Status, error), work func(context.Context) error) {
	c := &checkout{s: s, db: db, charge: charge, cb: newBreaker(s), wake: make(chan struct{}, 1), waiting: map[string][]chan breaker.Status{}}
	return c.pay, c.work
}

func (c *checkout) pay(ctx context.Context, p breaker.Payment) (status breaker.Status, err error) {
	told := make(chan breaker.Status, 1)
	c.mu.Lock()
	c.waiting[p.ID] = append(c.waiting[p.ID], told)
	c.mu.Unlock()
	if _, err := c.db.Exec(ctx, `INSERT INTO payments (id, cents, key) VALUES ($1, $2, $1) ON CONFLICT DO NOTHING`, p.ID, p.Cents); err != nil {
		return "", err
	}
	if err := c.db.QueryRow(ctx, `SELECT status FROM payments WHERE id = $1`, p.ID).Scan(&status); err != nil || status != breaker.Queued {
		return status, err
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	select {
	case status = <-told:
	case <-time.After(c.s.Timeout):
	case <-ctx.Done():
	}
	return status, nil
}

func (c *checkout) work(ctx context.Context) error {
	conn, err := c.db.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect the listener: %w", err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `LISTEN outcomes`); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			n, err := conn.Conn().WaitForNotification(ctx)
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			id, status, _ := strings.Cut(n.Payload, " ")
			c.mu.Lock()
			for _, told := range c.waiting[id] {
				told <- breaker.Status(status)
			}
			delete(c.waiting, id)
			c.mu.Unlock()
		}
	})
	g.Go(func() error {
		for ctx.Err() == nil {
			if err := c.round(ctx); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
			case <-c.wake:
			case <-time.After(100 * time.Millisecond):
			}
		}
		return nil
	})
	return g.Wait()
}

// round tries what is due, all at once.
func (c *checkout) round(ctx context.Context) error {
	rows, _ := c.db.Query(ctx, `SELECT id, cents FROM payments WHERE status = 'queued' AND due_at <= now() LIMIT 10`)
	due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[breaker.Payment])
	if err != nil {
		return fmt.Errorf("look for payments: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range due {
		g.Go(func() error {
			status := c.ask(ctx, p.ID, p)
			_, err := c.db.Exec(context.WithoutCancel(ctx), `WITH changed AS (
					UPDATE payments SET status = $2, due_at = now() + $3 WHERE id = $1 AND status = 'queued' RETURNING id, status)
				SELECT pg_notify('outcomes', id || ' ' || status) FROM changed`, p.ID, status, c.s.Retry)
			if err != nil {
				return fmt.Errorf("write down what came of a payment: %w", err)
			}
			return nil
		})
	}
	return g.Wait()
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
