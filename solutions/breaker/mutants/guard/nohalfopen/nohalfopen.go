// Mutant: counts failures by hand, and what is open stays open: nothing is ever let through to find out.
// Breaks: recovers
// Shown by: recovery

package nohalfopen

import (
	"context"
	"errors"
	"sync"
	"time"

	"crashcourse/exercises/breaker"
)

// Guard counts failures.
func Guard(s breaker.Settings, charge func(context.Context, breaker.Payment) error) func(context.Context, breaker.Payment) error {
	var mu sync.Mutex
	var ended, failed int
	began := time.Now()
	open := func() bool { return ended >= s.Volume && 100*failed >= s.FailureRate*ended }
	return func(ctx context.Context, p breaker.Payment) error {
		mu.Lock()
		if time.Since(began) > s.Window && !open() {
			ended, failed, began = 0, 0, time.Now()
		}
		rejected := open()
		mu.Unlock()
		if rejected {
			return breaker.ErrOpen
		}
		op, cancel := context.WithTimeout(ctx, s.Timeout)
		defer cancel()
		err := charge(op, p)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case ctx.Err() == context.Canceled:
		case err != nil && !errors.Is(err, breaker.ErrDeclined):
			ended++
			failed++
		default:
			ended++
		}
		return err
	}
}
