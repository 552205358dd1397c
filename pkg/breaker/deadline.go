package breaker

import (
	"context"
	"fmt"
	"time"
)

// grace is for how long a call is waited for when its context has ended. What heeds
// its context returns within it, so that nothing of it runs beside its caller.
const grace = 100 * time.Millisecond

// callWithin calls f in a goroutine of its own, and waits for it until shortly after
// the deadline: not every function heeds its context.
func (b *Breaker) callWithin(parent context.Context, f func(context.Context) error, release func()) error {
	ctx, cancel := context.WithTimeout(parent, b.o.Timeout)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		err := error(&brokeOff{errGoexit})
		defer func() {
			if p := recover(); p != nil {
				err = panicked(p)
			}
			if release != nil {
				release()
			}
			ended <- err
		}()
		err = f(ctx)
	}()
	select {
	case err := <-ended:
		return b.late(parent, ctx, err)
	case <-ctx.Done():
	}
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case err := <-ended:
		return b.late(parent, ctx, err)
	case <-patience.C:
	}
	b.o.Logger.Warn("breaker: a call does not heed its context, and is given up; it runs on", "breaker", b.o.Name)
	if parent.Err() == context.Canceled {
		return parent.Err()
	}
	b.timedOut.Add(1)
	return ErrTimeout
}

// late says what f's error means if it came when ctx had ended.
func (b *Breaker) late(parent, ctx context.Context, err error) error {
	if err == nil || permanent(err) || ctx.Err() != context.DeadlineExceeded || parent.Err() == context.Canceled {
		return err
	}
	b.timedOut.Add(1)
	return fmt.Errorf("%w (%w)", ErrTimeout, err)
}
