// Package pkgqueue is an alternative answer to breaker/fallback: the course's own package, which has a table of its own beside payments.
package pkgqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	contract "crashcourse/exercises/breaker"
	"crashcourse/pkg/breaker"
)

// Fallback stores the payment and its request in one transaction. What the service
// says is written into both by another.
func Fallback(s contract.Settings, db *pgxpool.Pool, charge func(context.Context, string, contract.Payment) error) (
	pay func(context.Context, contract.Payment) (contract.Status, error), work func(context.Context) error) {
	q, err := open(s, db, charge)
	ready := make(chan struct{}) // closed when there is a table
	pay = func(ctx context.Context, p contract.Payment) (status contract.Status, _ error) {
		if err != nil {
			return "", err
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO payments (id, cents, key) VALUES ($1, $2, $1) ON CONFLICT DO NOTHING`, p.ID, p.Cents); err != nil {
				return err
			}
			body, err := json.Marshal(p)
			if err != nil {
				return err
			}
			return q.Enqueue(ctx, tx, breaker.Request{Key: p.ID, Body: body})
		})
		if err != nil {
			return "", err
		}
		if r, err := q.Try(ctx, p.ID); err != nil {
			return "", err
		} else if r.Status == breaker.Queued {
			return contract.Queued, nil
		} else {
			return contract.Status(r.Answer), nil
		}
	}
	work = func(ctx context.Context) error {
		if err != nil {
			return err
		}
		if err := breaker.Migrate(ctx, db); err != nil {
			return fmt.Errorf("make the table: %w", err)
		}
		close(ready)
		return q.Run(ctx)
	}
	return pay, work
}

func open(s contract.Settings, db *pgxpool.Pool, charge func(context.Context, string, contract.Payment) error) (*breaker.Queue, error) {
	b, err := breaker.New(breaker.Options{
		Name: "payments", Timeout: s.Timeout, ErrorThresholdPercentage: s.FailureRate, VolumeThreshold: s.Volume,
		RollingCountTimeout: s.Window, ResetTimeout: s.Reset, Probes: s.Probes,
	})
	if err != nil {
		return nil, err
	}
	return breaker.NewQueue(db, breaker.QueueOptions{
		Name: "payments", Breaker: b, MinRetry: s.Retry, MaxRetry: s.Retry, PollInterval: 120 * time.Millisecond,
		Timeout: s.Timeout + 300*time.Millisecond, Lease: 2*s.Timeout + 400*time.Millisecond,
		Call: func(ctx context.Context, a breaker.Attempt) ([]byte, error) {
			var p contract.Payment
			if err := json.Unmarshal(a.Body, &p); err != nil {
				return nil, breaker.Permanent(err)
			}
			err := charge(ctx, a.Key, p)
			if errors.Is(err, contract.ErrDeclined) { // that is an answer
				return []byte(contract.Declined), nil
			}
			return []byte(contract.Charged), err
		},
		Done: func(ctx context.Context, tx pgx.Tx, a breaker.Attempt, answer []byte) error {
			_, err := tx.Exec(ctx, `UPDATE payments SET status = $2 WHERE id = $1`, a.Key, string(answer))
			return err
		},
	})
}
