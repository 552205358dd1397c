package breaker_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"crashcourse/pkg/breaker"
)

func newBulkhead(t testing.TB, o breaker.BulkheadOptions) *breaker.Bulkhead {
	t.Helper()
	k, err := breaker.NewBulkhead(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestBulkheadRejectsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBulkhead(t, breaker.BulkheadOptions{})
		var calls sync.WaitGroup
		for range 10 {
			calls.Go(func() { _ = k.Do(t.Context(), func(context.Context) error { time.Sleep(time.Second); return nil }) })
		}
		synctest.Wait()
		began := time.Now()
		if err := k.Do(t.Context(), works); !errors.Is(err, breaker.ErrFull) || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if k.InUse() != 10 || k.Rejected() != 1 {
			t.Errorf("%d in use, %d rejected", k.InUse(), k.Rejected())
		}
		calls.Wait()
		if err := k.Do(t.Context(), works); err != nil || k.InUse() != 0 {
			t.Errorf("%v, %d in use", err, k.InUse())
		}
	})
}

func TestBulkheadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBulkhead(t, breaker.BulkheadOptions{MaxConcurrent: 1, MaxWait: 2 * time.Second})
		release, err := k.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := k.Do(t.Context(), works); !errors.Is(err, breaker.ErrFull) || time.Since(began) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := k.Do(ctx, works); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, breaker.ErrFull) {
			t.Errorf("%v", err)
		}
		time.AfterFunc(time.Second, func() { release(); release() })
		if err := k.Do(t.Context(), works); err != nil {
			t.Errorf("%v", err)
		}
		if k.InUse() != 0 {
			t.Errorf("%d in use", k.InUse())
		}
	})
}

// What the bulkhead rejects says nothing about the dependency.
func TestBulkheadBesideTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBulkhead(t, breaker.BulkheadOptions{MaxConcurrent: 2, MaxWait: time.Minute})
		b := newBreaker(t, breaker.Options{Bulkhead: k})
		release := make(chan struct{})
		stuck := func(context.Context) error { <-release; return nil } // heeds nothing
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() { _ = b.Do(t.Context(), stuck) })
		}
		calls.Wait()
		if k.InUse() != 2 {
			t.Errorf("the calls were given up, and run: %d places are in use", k.InUse())
		}
		began := time.Now()
		if err := b.Do(t.Context(), works); !errors.Is(err, breaker.ErrFull) || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		close(release)
		synctest.Wait()
		if c := b.Counts(); k.InUse() != 0 || c.Requests != 0 {
			t.Errorf("%d places in use, %+v", k.InUse(), c)
		}
		for _, f := range []func(context.Context) error{works, fails, hangs, func(context.Context) error { panic(1) }} {
			_ = b.Do(t.Context(), f)
		}
		synctest.Wait()
		if k.InUse() != 0 {
			t.Errorf("%d places in use", k.InUse())
		}
	})
}

// While the circuit is open nobody waits for a place.
func TestBulkheadOfAnOpenCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newBulkhead(t, breaker.BulkheadOptions{MaxConcurrent: 1, MaxWait: time.Minute})
		b := opened(t, breaker.Options{Bulkhead: k})
		release, err := k.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := b.Do(t.Context(), works); !errors.Is(err, breaker.ErrOpen) || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		release()
		if err := b.Do(t.Context(), works); !errors.Is(err, breaker.ErrOpen) || k.InUse() != 0 {
			t.Errorf("%v, %d in use", err, k.InUse())
		}
	})
}
