package breaker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State is a state of a [Breaker]. Its method String returns closed, open or
// half-open.
type State = gobreaker.State

// The states.
const (
	Closed   = gobreaker.StateClosed   // calls go through
	HalfOpen = gobreaker.StateHalfOpen // a few do, to see whether the dependency works again
	Open     = gobreaker.StateOpen     // none does
)

// Breaker stands before one dependency. Make it with [New], one for each
// dependency and process. All methods may be called from several goroutines at
// once.
type Breaker struct {
	o      Options
	cb     *gobreaker.CircuitBreaker[struct{}]
	events events

	// Written and read under the lock of cb only, by the functions that it calls.
	halfOpen bool
	tripped  Counts // what has made it open
	probed   Counts // how the probes ended

	rejected, timedOut atomic.Uint64
}

// New returns a breaker whose circuit is closed.
func New(o Options) (*Breaker, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Breaker{o: o}
	b.events.tell = b.tell
	step := (o.RollingCountTimeout + time.Duration(o.RollingCountBuckets) - 1) / time.Duration(o.RollingCountBuckets)
	b.cb = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:          o.Name,
		MaxRequests:   uint32(o.Probes),
		Interval:      step * time.Duration(o.RollingCountBuckets),
		BucketPeriod:  step,
		Timeout:       o.ResetTimeout,
		ReadyToTrip:   b.readyToTrip,
		OnStateChange: b.changed,
		IsSuccessful:  b.isSuccessful,
		IsExcluded:    b.isExcluded,
	})
	return b, nil
}

// Do calls f if the circuit lets it, with a context that ends after
// Options.Timeout, and returns its error, or
//
//   - [ErrOpen]: f was not called;
//   - [ErrFull]: f was not called, since the bulkhead is full;
//   - [ErrTimeout]: f took too long, for this breaker or for ctx's own deadline.
//     What f does may have happened, or may yet;
//   - ctx's error: the caller has given up. It counts neither as a failure nor as
//     a success.
//
// An f that does not return when its context ends is given up 100 ms later: Do
// returns, f runs on, and what it returns is dropped. Where that can be, f must not
// write to what its caller reads: hand results over with [Get]. A panic of f is an
// error, and a failure.
func (b *Breaker) Do(ctx context.Context, f func(ctx context.Context) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	var release func()
	if b.o.Bulkhead != nil {
		if release, err = b.enter(ctx); err != nil {
			return err
		}
	}
	_, verdict := b.cb.Execute(func() (_ struct{}, verdict error) {
		if b.o.Timeout > 0 {
			err = b.callWithin(ctx, f, release)
		} else {
			returned := false
			defer func() {
				if !returned {
					err, verdict = panicked(recover()), errFailed
				}
				if release != nil {
					release()
				}
			}()
			err = f(ctx)
			returned = true
		}
		if err == nil {
			return struct{}{}, nil
		}
		return struct{}{}, b.verdict(ctx, err)
	})
	b.events.deliver()
	switch verdict {
	case gobreaker.ErrOpenState:
		return b.reject(ErrOpen, release)
	case gobreaker.ErrTooManyRequests:
		return b.reject(errProbing, release)
	}
	return err
}

func (b *Breaker) reject(err error, release func()) error {
	if release != nil {
		release()
	}
	b.rejected.Add(1)
	return err
}

// Get is [Breaker.Do] for a function that returns a value. If the error is not
// nil, the value is zero.
func Get[T any](ctx context.Context, b *Breaker, f func(ctx context.Context) (T, error)) (T, error) {
	var v T
	err := b.Do(ctx, func(ctx context.Context) (err error) {
		v, err = f(ctx)
		return err
	})
	if err != nil {
		var zero T // v may still be written to
		return zero, err
	}
	return v, nil
}

// enter takes a place in the bulkhead. While the circuit is open nobody waits for
// one.
func (b *Breaker) enter(ctx context.Context) (release func(), err error) {
	k := b.o.Bulkhead
	if release, ok := k.try(); ok {
		return release, nil
	}
	if b.State() == Open {
		b.rejected.Add(1)
		return nil, ErrOpen
	}
	return k.Acquire(ctx)
}

// State returns the state of the circuit. An open circuit becomes half-open when
// somebody calls or asks after Options.ResetTimeout, not by itself.
func (b *Breaker) State() State {
	defer b.events.deliver()
	return b.cb.State()
}

// Counts returns what the circuit's state is judged by: the calls of the rolling
// window if it is closed, the probes if it is half-open, nothing if it is open.
func (b *Breaker) Counts() Counts {
	defer b.events.deliver()
	b.cb.State() // moves the window on
	return countsOf(b.cb.Counts())
}

// Rejected returns how many calls were rejected because the circuit was not closed,
// since the breaker was made.
func (b *Breaker) Rejected() uint64 { return b.rejected.Load() }

// TimedOut returns how many calls took too long, since the breaker was made.
func (b *Breaker) TimedOut() uint64 { return b.timedOut.Load() }
