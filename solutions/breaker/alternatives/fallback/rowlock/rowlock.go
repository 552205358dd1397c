// Package rowlock is an alternative answer to breaker/fallback: whoever tries holds the lock of the row, in a transaction that is open during the call; its end is the end of the claim.
package rowlock

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

// Fallback commits the row first, and then locks it for as long as it tries. That
// keeps a session busy during the call, of which there are four.
func Fallback(s breaker.Settings, db *pgxpool.Pool, charge func(context.Context, string, breaker.Payment) error) (
	pay func(context.Context, breaker.Payment) (breaker.Status, error), work func(context.Context) error) {
	c := &checkout{s: s, db: db, charge: charge, cb: newBreaker(s)}
	return c.pay, c.work
}

func (c *checkout) pay(ctx context.Context, p breaker.Payment) (status breaker.Status, err error) {
	if _, err := c.db.Exec(ctx, `INSERT INTO payments (id, cents, key) VALUES ($1, $2, $1) ON CONFLICT DO NOTHING`, p.ID, p.Cents); err != nil {
		return "", err
	}
	waiting, cancel := context.WithTimeout(ctx, c.s.Timeout) // for a session
	defer cancel()
	if status, _, err = c.try(waiting, ctx, `SELECT id, cents, key, status FROM payments WHERE id = $1 FOR UPDATE SKIP LOCKED`, p.ID); err != nil || status != "" {
		return status, nilIf(status, err)
	}
	return breaker.Queued, nil // somebody tries it right now
}

// nilIf drops an error that does not change what the client is to be told.
func nilIf(status breaker.Status, err error) error {
	if status != "" {
		return nil
	}
	return err
}

// try locks the row that a query finds, tries it if it is queued, and says what it is.
func (c *checkout) try(waiting, ctx context.Context, query string, args ...any) (status breaker.Status, found bool, err error) {
	err = pgx.BeginFunc(waiting, c.db, func(tx pgx.Tx) error {
		var p breaker.Payment
		var key string
		err := tx.QueryRow(waiting, query, args...).Scan(&p.ID, &p.Cents, &key, &status)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if found = err == nil; !found || status != breaker.Queued {
			return err
		}
		status = c.ask(ctx, key, p)
		_, err = tx.Exec(context.WithoutCancel(ctx), `UPDATE payments SET status = $2, due_at = now() + $3 WHERE id = $1`, p.ID, status, c.s.Retry)
		return err
	})
	if err != nil && found {
		status = breaker.Queued // the row is there, and that has not changed
	}
	return status, found, err
}

func (c *checkout) work(ctx context.Context) error {
	for ctx.Err() == nil {
		_, found, err := c.try(ctx, ctx, `SELECT id, cents, key, status FROM payments WHERE status = 'queued' AND due_at <= now()
			ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED`)
		if err != nil {
			return fmt.Errorf("try a payment: %w", err)
		}
		if found {
			continue
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
