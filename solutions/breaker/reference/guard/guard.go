// Package guard is the reference answer to breaker/guard.
package guard

import (
	"context"
	"errors"

	"github.com/sony/gobreaker/v2"

	"crashcourse/exercises/breaker"
)

// Guard has the breaker outside and the deadline inside: a call that takes too long
// is one that the breaker sees fail.
func Guard(s breaker.Settings, charge func(context.Context, breaker.Payment) error) func(context.Context, breaker.Payment) error {
	cb := gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(s.Probes),
		Interval:     s.Window, // zero would be for ever
		BucketPeriod: s.Window / 10,
		Timeout:      s.Reset, // not a call's: gobreaker has none for calls
		ReadyToTrip: func(c gobreaker.Counts) bool {
			// Not c.Requests: it also counts calls that have not ended.
			ended := int(c.TotalSuccesses + c.TotalFailures)
			return ended >= s.Volume && 100*int(c.TotalFailures) >= s.FailureRate*ended
		},
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, breaker.ErrDeclined) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	return func(ctx context.Context, p breaker.Payment) error {
		_, err := cb.Execute(func() (struct{}, error) {
			ctx, cancel := context.WithTimeout(ctx, s.Timeout)
			defer cancel()
			return struct{}{}, charge(ctx, p)
		})
		if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
			return breaker.ErrOpen
		}
		return err
	}
}
