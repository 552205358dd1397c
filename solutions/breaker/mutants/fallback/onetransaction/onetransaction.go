// Mutant: stores the payment in the transaction that also asks the service: until that commits, there is no row.
// Breaks: no-lost-payment
// Shown by: hang-ups

package onetransaction

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
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

func (c *checkout) pay(ctx context.Context, p breaker.Payment) (status breaker.Status, err error) {
	err = pgx.BeginFunc(context.WithoutCancel(ctx), c.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO payments (id, cents, key, due_at) VALUES ($1, $2, $1, now() + $3) ON CONFLICT DO NOTHING`,
			p.ID, p.Cents, c.s.Retry)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return tx.QueryRow(ctx, `SELECT status FROM payments WHERE id = $1`, p.ID).Scan(&status)
		}
		status = c.ask(ctx, p)
		_, err = tx.Exec(context.WithoutCancel(ctx), `UPDATE payments SET status = $2 WHERE id = $1`, p.ID, status)
		return err
	})
	return status, err
}

func (c *checkout) ask(ctx context.Context, p breaker.Payment) breaker.Status {
	_, err := c.cb.Execute(func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, c.s.Timeout)
		defer cancel()
		return struct{}{}, c.charge(ctx, p.ID, p)
	})
	status := breaker.Queued
	switch {
	case err == nil:
		status = breaker.Charged
	case errors.Is(err, breaker.ErrDeclined):
		status = breaker.Declined
	}
	return status
}

// attempt asks the service once, and writes down what it said.
func (c *checkout) attempt(ctx context.Context, p breaker.Payment) (breaker.Status, error) {
	status := c.ask(ctx, p)
	op, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.s.Timeout)
	defer cancel()
	_, err := c.db.Exec(op, `UPDATE payments SET status = $2, due_at = now() + $3 WHERE id = $1 AND status = 'queued'`, p.ID, status, c.s.Retry)
	if err != nil {
		return breaker.Queued, nil
	}
	return status, nil
}

// work attempts what is due, one after the other.
func (c *checkout) work(ctx context.Context) error {
	for ctx.Err() == nil {
		rows, err := c.db.Query(ctx, `SELECT id, cents FROM payments WHERE status = 'queued' AND due_at <= now() ORDER BY due_at LIMIT 10`)
		if err != nil {
			return fmt.Errorf("look for payments: %w", err)
		}
		due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[breaker.Payment])
		if err != nil {
			return fmt.Errorf("look for payments: %w", err)
		}
		for _, p := range due {
			if _, err := c.attempt(ctx, p); err != nil {
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
