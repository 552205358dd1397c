// Mutant: takes a 5xx for a clear no, and tries again as a new payment: it may come from a gateway whose service has charged.
// Breaks: charged-once
// Shown by: flapping

package fivehundred

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sony/gobreaker/v2"

	"crashcourse/exercises/breaker"
)

type keyed struct {
	ID    string
	Cents int64
	Key   string
}

type checkout struct {
	s      breaker.Settings
	db     *pgxpool.Pool
	charge func(context.Context, string, breaker.Payment) error
	cb     *gobreaker.CircuitBreaker[struct{}]
}

// Fallback returns the halves of a checkout.
func Fallback(s breaker.Settings, db *pgxpool.Pool, charge func(context.Context, string, breaker.Payment) error) (
	pay func(context.Context, breaker.Payment) (breaker.Status, error), work func(context.Context) error) {
	c := &checkout{s: s, db: db, charge: charge, cb: gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
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
	})}
	return c.pay, c.work
}

func (c *checkout) pay(ctx context.Context, p breaker.Payment) (breaker.Status, error) {
	var status breaker.Status
	tag, err := c.db.Exec(ctx, `INSERT INTO payments (id, cents, key, due_at) VALUES ($1, $2, $1, now() + $3) ON CONFLICT DO NOTHING`,
		p.ID, p.Cents, 2*c.s.Timeout)
	if err == nil && tag.RowsAffected() == 0 {
		err = c.db.QueryRow(ctx, `SELECT status FROM payments WHERE id = $1`, p.ID).Scan(&status)
		return status, err
	}
	if err != nil {
		return "", err
	}
	return c.attempt(ctx, p, p.ID)
}

// attempt asks the service once, and writes down what it said.
func (c *checkout) attempt(ctx context.Context, p breaker.Payment, key string) (breaker.Status, error) {
	_, err := c.cb.Execute(func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, c.s.Timeout)
		defer cancel()
		return struct{}{}, c.charge(ctx, key, p)
	})
	status := breaker.Queued
	switch {
	case err == nil:
		status = breaker.Charged
	case errors.Is(err, breaker.ErrDeclined):
		status = breaker.Declined
	case strings.Contains(err.Error(), "answers 5"):
		key = uuid.NewString()
	}
	op, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.s.Timeout)
	defer cancel()
	_, err = c.db.Exec(op, `UPDATE payments SET status = $2, due_at = now() + $3, key = $4 WHERE id = $1 AND status = 'queued'`, p.ID, status, c.s.Retry, key)
	if err != nil {
		return breaker.Queued, nil
	}
	return status, nil
}

// work attempts what is due, one after the other.
func (c *checkout) work(ctx context.Context) error {
	for ctx.Err() == nil {
		rows, err := c.db.Query(ctx, `SELECT id, cents, key FROM payments WHERE status = 'queued' AND due_at <= now() ORDER BY due_at LIMIT 10`)
		if err != nil {
			return fmt.Errorf("look for payments: %w", err)
		}
		due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[keyed])
		if err != nil {
			return fmt.Errorf("look for payments: %w", err)
		}
		for _, p := range due {
			if _, err := c.attempt(ctx, breaker.Payment{ID: p.ID, Cents: p.Cents}, p.Key); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}
