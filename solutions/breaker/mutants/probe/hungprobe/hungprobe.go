// Mutant: a probe has no deadline, to give the service every chance: while one hangs, and that is for ever, there is no other.
// Breaks: recovers
// Shown by: hung probe

package hungprobe

import (
	"context"
	"errors"
	"sync"
	"time"

	"crashcourse/exercises/breaker"
)

type outcome struct {
	at     time.Time
	failed bool
}

type circuit struct {
	s breaker.Settings

	mu         sync.Mutex
	epoch      int // grows with each change of state: a call of an earlier one says nothing
	open       bool
	until      time.Time // open until then, and half-open after it
	probing    int
	successes  int // of probes
	lastCalled []outcome
}

// Probe calls charge through a circuit.
func Probe(s breaker.Settings, charge func(context.Context, breaker.Payment) error) func(context.Context, breaker.Payment) error {
	c := &circuit{s: s}
	return func(ctx context.Context, p breaker.Payment) error {
		epoch, ok := c.enter()
		if !ok {
			return breaker.ErrOpen
		}
		err := errors.New("it panicked")
		defer func() { c.leave(epoch, ctx, err) }()
		op, cancel := context.WithTimeout(ctx, s.Timeout)
		defer cancel()
		if !c.isOpen() {
			err = charge(op, p)
			return err
		}
		ended := make(chan error, 1)
		go func(epoch int) {
			err := charge(context.WithoutCancel(ctx), p)
			c.leave(epoch, context.WithoutCancel(ctx), err)
			ended <- err
		}(epoch)
		epoch = -1 // that has been seen to
		select {
		case err = <-ended:
		case <-op.Done():
			err = op.Err()
		}
		return err
	}
}

func (c *circuit) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

func (c *circuit) enter() (epoch int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open {
		if time.Now().Before(c.until) || c.probing+c.successes >= c.s.Probes {
			return 0, false
		}
		c.probing++
	}
	return c.epoch, true
}

func (c *circuit) leave(epoch int, ctx context.Context, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch {
		return
	}
	now := time.Now()
	left := ctx.Err() == context.Canceled
	failed := err != nil && !errors.Is(err, breaker.ErrDeclined)
	if c.open {
		c.probing--
		switch {
		case left:
		case failed:
			c.trip(now)
		default:
			if c.successes++; c.successes >= c.s.Probes {
				c.open, c.lastCalled = false, nil
				c.epoch++
			}
		}
		return
	}
	if left {
		return
	}
	c.lastCalled = append(c.lastCalled, outcome{now, failed})
	for now.Sub(c.lastCalled[0].at) > c.s.Window {
		c.lastCalled = c.lastCalled[1:]
	}
	failures := 0
	for _, o := range c.lastCalled {
		if o.failed {
			failures++
		}
	}
	if n := len(c.lastCalled); failed && n >= c.s.Volume && 100*failures >= c.s.FailureRate*n {
		c.trip(now)
	}
}

func (c *circuit) trip(now time.Time) {
	c.open, c.until, c.probing, c.successes = true, now.Add(c.s.Reset), 0, 0
	c.epoch++
}
