// Mutant: queues in memory: what waits there dies with the process.
// Breaks: no-lost-payment
// Shown by: none

package memory

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sony/gobreaker/v2"

	"crashcourse/exercises/breaker"
)

type checkout struct {
	s      breaker.Settings
	db     *pgxpool.Pool
	charge func(context.Context, string, breaker.Payment) error
	cb     *gobreaker.CircuitBreaker[struct{}]
	mu     sync.Mutex
	queue  []breaker.Payment
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
	status := c.ask(ctx, p)
	if status == breaker.Queued {
		c.mu.Lock()
		c.queue = append(c.queue, p)
		c.mu.Unlock()
		return status, nil
	}
	return status, c.store(p, status)
}

func (c *checkout) store(p breaker.Payment, status breaker.Status) error {
	_, err := c.db.Exec(context.Background(), `INSERT INTO payments (id, cents, key, status) VALUES ($1, $2, $1, $3) ON CONFLICT DO NOTHING`, p.ID, p.Cents, status)
	return err
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

// work attempts what is due, one after the other.
func (c *checkout) work(ctx context.Context) error {
	for ctx.Err() == nil {
		c.mu.Lock()
		due := c.queue
		c.queue = nil
		c.mu.Unlock()
		for _, p := range due {
			status := c.ask(ctx, p)
			if status != breaker.Queued {
				if err := c.store(p, status); err != nil {
					return err
				}
				continue
			}
			c.mu.Lock()
			c.queue = append(c.queue, p)
			c.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(c.s.Retry):
		}
	}
	return nil
}
