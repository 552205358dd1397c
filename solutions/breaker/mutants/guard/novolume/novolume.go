// Mutant: has no least number of calls: the first one that fails is a hundred percent.
// Breaks: no-false-trip
// Shown by: few

package novolume

import (
	"context"
	"errors"

	"github.com/sony/gobreaker/v2"

	"crashcourse/exercises/breaker"
)

// Guard calls charge through a breaker.
func Guard(s breaker.Settings, charge func(context.Context, breaker.Payment) error) func(context.Context, breaker.Payment) error {
	cb := gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(s.Probes),
		Interval:     s.Window,
		BucketPeriod: s.Window / 10,
		Timeout:      s.Reset,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			ended := int(c.TotalSuccesses + c.TotalFailures)
			return 100*int(c.TotalFailures) >= s.FailureRate*ended
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
