// Package twostep is an alternative answer to breaker/probe: gobreaker in two steps,
// which leaves the call to its user, and a fixed window in place of a rolling one.
package twostep

import (
	"context"
	"errors"

	"github.com/sony/gobreaker/v2"

	"crashcourse/exercises/breaker"
)

// Probe asks whether it may call, calls, and says how it went.
func Probe(s breaker.Settings, charge func(context.Context, breaker.Payment) error) func(context.Context, breaker.Payment) error {
	cb := gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: uint32(s.Probes),
		Interval:    s.Window,
		Timeout:     s.Reset,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			ended := int(c.TotalSuccesses + c.TotalFailures)
			return ended >= s.Volume && 100*int(c.TotalFailures) >= s.FailureRate*ended
		},
		IsExcluded: func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	return func(ctx context.Context, p breaker.Payment) error {
		done, err := cb.Allow()
		if err != nil {
			return breaker.ErrOpen
		}
		err = errors.New("it panicked")
		defer func() {
			if errors.Is(err, breaker.ErrDeclined) {
				done(nil)
				return
			}
			done(err)
		}()
		op, cancel := context.WithTimeout(ctx, s.Timeout)
		defer cancel()
		err = charge(op, p)
		return err
	}
}
