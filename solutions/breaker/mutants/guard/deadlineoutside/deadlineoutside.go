// Mutant: the deadline is around the breaker: the client is answered, and the breaker never hears that the call failed.
// Breaks: open-means-no-calls
// Shown by: hanging

package deadlineoutside

import (
	"context"
	"errors"
	"time"

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
			return ended >= s.Volume && 100*int(c.TotalFailures) >= s.FailureRate*ended
		},
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, breaker.ErrDeclined) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	return func(ctx context.Context, p breaker.Payment) error {
		ended := make(chan error, 1)
		go func() {
			_, err := cb.Execute(func() (struct{}, error) { return struct{}{}, charge(ctx, p) })
			ended <- err
		}()
		var err error
		select {
		case err = <-ended:
		case <-time.After(s.Timeout):
			return context.DeadlineExceeded
		}
		if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
			return breaker.ErrOpen
		}
		return err
	}
}
