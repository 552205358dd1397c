// Package cas is an alternative answer to breaker/guard: the state is one immutable
// value, replaced by compare-and-swap; nobody ever waits for a lock.
package cas

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"crashcourse/exercises/breaker"
)

// state is never changed, only replaced.
type state struct {
	epoch   int
	until   time.Time // zero: closed
	probing int
	good    int
	began   time.Time // of the window
	ended   int
	failed  int
}

type circuit struct {
	s  breaker.Settings
	st atomic.Pointer[state]
}

// Guard calls charge through a circuit.
func Guard(s breaker.Settings, charge func(context.Context, breaker.Payment) error) func(context.Context, breaker.Payment) error {
	c := &circuit{s: s}
	c.st.Store(&state{began: time.Now()})
	return func(ctx context.Context, p breaker.Payment) error {
		epoch, ok := c.enter()
		if !ok {
			return breaker.ErrOpen
		}
		err := errors.New("it panicked")
		defer func() {
			c.leave(epoch, ctx.Err() == context.Canceled, err != nil && !errors.Is(err, breaker.ErrDeclined))
		}()
		op, cancel := context.WithTimeout(ctx, s.Timeout)
		defer cancel()
		err = charge(op, p)
		return err
	}
}

func (c *circuit) enter() (epoch int, ok bool) {
	for {
		old := c.st.Load()
		if old.until.IsZero() {
			return old.epoch, true
		}
		if time.Now().Before(old.until) || old.probing+old.good >= c.s.Probes {
			return 0, false
		}
		next := *old
		next.probing++
		if c.st.CompareAndSwap(old, &next) {
			return next.epoch, true
		}
	}
}

func (c *circuit) leave(epoch int, left, fails bool) {
	for {
		old := c.st.Load()
		if old.epoch != epoch {
			return
		}
		next := *old
		now := time.Now()
		if old.until.IsZero() {
			if left {
				return
			}
			if now.Sub(next.began) > c.s.Window {
				next.began, next.ended, next.failed = now, 0, 0
			}
			next.ended++
			if fails {
				next.failed++
				if next.ended >= c.s.Volume && 100*next.failed >= c.s.FailureRate*next.ended {
					next = state{epoch: epoch + 1, until: now.Add(c.s.Reset)}
				}
			}
		} else {
			next.probing--
			switch {
			case left:
			case fails:
				next = state{epoch: epoch + 1, until: now.Add(c.s.Reset)}
			default:
				if next.good++; next.good == c.s.Probes {
					next = state{epoch: epoch + 1, began: now}
				}
			}
		}
		if c.st.CompareAndSwap(old, &next) {
			return
		}
	}
}
