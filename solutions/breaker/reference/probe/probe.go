// Package probe is the reference answer to breaker/probe.
package probe

import (
	"context"
	"errors"

	"github.com/sony/gobreaker/v2"

	"crashcourse/exercises/breaker"
)

// Probe leaves the crowd to gobreaker: it counts places under its lock, gives each state
// a generation, and drops what comes from an earlier one. What it does not do is end a
// probe that hangs, and know whose fault it is when one is cancelled.
func Probe(s breaker.Settings, charge func(context.Context, breaker.Payment) error) func(context.Context, breaker.Payment) error {
	cb := gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(s.Probes), // both: how many at a time, and how many must succeed
		Interval:     s.Window,         // zero would be for ever
		BucketPeriod: s.Window / 10,
		Timeout:      s.Reset, // not a call's: gobreaker has none for calls
		ReadyToTrip: func(c gobreaker.Counts) bool {
			// Not c.Requests: it also counts calls that have not ended.
			ended := int(c.TotalSuccesses + c.TotalFailures)
			return ended >= s.Volume && 100*int(c.TotalFailures) >= s.FailureRate*ended
		},
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, breaker.ErrDeclined) },
		// Without it a probe whose client leaves would open the circuit again.
		IsExcluded: func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	return func(ctx context.Context, p breaker.Payment) error {
		_, err := cb.Execute(func() (struct{}, error) {
			// Inside: a probe that hangs ends here, and gives its place back.
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
