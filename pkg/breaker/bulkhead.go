package breaker

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// BulkheadOptions are the options of a [Bulkhead]. Both may be left zero.
type BulkheadOptions struct {
	// MaxConcurrent is how many calls may be under way at a time. Zero: 10.
	MaxConcurrent int
	// MaxWait is for how long a call waits for a place. Zero: it does not wait.
	MaxWait time.Duration
}

// Bulkhead bounds how many calls to one dependency are under way at a time, so
// that a slow one does not take all goroutines, connections and memory of its
// callers. Use it by Options.Bulkhead, or alone.
type Bulkhead struct {
	o        BulkheadOptions
	places   *semaphore.Weighted
	taken    atomic.Int64
	rejected atomic.Uint64
}

// NewBulkhead returns a bulkhead whose places are all free.
func NewBulkhead(o BulkheadOptions) (*Bulkhead, error) {
	o.MaxConcurrent = cmp.Or(o.MaxConcurrent, 10)
	if o.MaxConcurrent < 0 || o.MaxWait < 0 {
		return nil, fmt.Errorf("breaker: BulkheadOptions.MaxConcurrent is %d and MaxWait %v; they must not be negative", o.MaxConcurrent, o.MaxWait)
	}
	return &Bulkhead{o: o, places: semaphore.NewWeighted(int64(o.MaxConcurrent))}, nil
}

// Do calls f when there is a place, and returns its error, or what [Bulkhead.Acquire]
// returns.
func (k *Bulkhead) Do(ctx context.Context, f func(ctx context.Context) error) error {
	release, err := k.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return f(ctx)
}

// Acquire takes a place, waiting for one for up to MaxWait, first come first served.
// The caller gives it back by release, which may be called more than once. If there
// is none the error is [ErrFull], or ctx's error if that ended first.
func (k *Bulkhead) Acquire(ctx context.Context) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if release, ok := k.try(); ok {
		return release, nil
	}
	if k.o.MaxWait > 0 {
		wait, cancel := context.WithTimeout(ctx, k.o.MaxWait)
		defer cancel()
		if k.places.Acquire(wait, 1) == nil {
			return k.took(), nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	k.rejected.Add(1)
	return nil, ErrFull
}

func (k *Bulkhead) try() (release func(), ok bool) {
	if !k.places.TryAcquire(1) {
		return nil, false
	}
	return k.took(), true
}

func (k *Bulkhead) took() (release func()) {
	k.taken.Add(1)
	return sync.OnceFunc(func() {
		k.taken.Add(-1)
		k.places.Release(1)
	})
}

// InUse returns how many places are taken. A call that was given up holds its place
// until its function has returned.
func (k *Bulkhead) InUse() int { return int(k.taken.Load()) }

// Rejected returns how many calls found no place, since the bulkhead was made.
func (k *Bulkhead) Rejected() uint64 { return k.rejected.Load() }
