// Mutant: has a queue, a deadline and a key, and no breaker: it goes on asking a service that is down.
// Breaks: open-means-no-calls
// Shown by: down

package nobreaker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/breaker"
)

type checkout struct {
	s      breaker.Settings
	db     *pgxpool.Pool
	charge func(context.Context, string, breaker.Payment) error
}

// Fallback returns the halves of a checkout.
func Fallback(s breaker.Settings, db *pgxpool.Pool, charge func(context.Context, string, breaker.Payment) error) (
	pay func(context.Context, breaker.Payment) (breaker.Status, error), work func(context.Context) error) {
	c := &checkout{s: s, db: db, charge: charge}
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
	return c.attempt(ctx, p)
}

// attempt asks the service once, and writes down what it said.
func (c *checkout) attempt(ctx context.Context, p breaker.Payment) (breaker.Status, error) {
	call, done := context.WithTimeout(ctx, c.s.Timeout)
	defer done()
	err := c.charge(call, p.ID, p)
	status := breaker.Queued
	switch {
	case err == nil:
		status = breaker.Charged
	case errors.Is(err, breaker.ErrDeclined):
		status = breaker.Declined
	}
	op, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.s.Timeout)
	defer cancel()
	_, err = c.db.Exec(op, `UPDATE payments SET status = $2, due_at = now() + $3 WHERE id = $1 AND status = 'queued'`, p.ID, status, c.s.Retry)
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
