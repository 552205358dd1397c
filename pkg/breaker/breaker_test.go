package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crashcourse/pkg/breaker"
)

// These tests run in bubbles, where time is a fake that stands still while anything
// works: so they use the defaults, whole seconds, and say exactly when.

var errDown = errors.New("503")

func fails(context.Context) error { return errDown }
func works(context.Context) error { return nil }

// hangs heeds its context.
func hangs(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func newBreaker(t testing.TB, o breaker.Options) *breaker.Breaker {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b, err := breaker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// opened returns a breaker whose circuit has just opened.
func opened(t testing.TB, o breaker.Options) *breaker.Breaker {
	t.Helper()
	b := newBreaker(t, o)
	for range 5 {
		_ = b.Do(t.Context(), fails)
	}
	if s := b.State(); s != breaker.Open {
		t.Fatalf("it is %v after five failures", s)
	}
	return b
}

func TestOpensByRateFromAVolumeOn(t *testing.T) {
	for _, c := range []struct {
		calls string // + succeeds, - fails
		open  int    // by which call the circuit opens; 0: by none
		o     breaker.Options
	}{
		{"----", 0, breaker.Options{}}, // too few
		{"-----", 5, breaker.Options{}},
		{"+++--", 0, breaker.Options{}},
		{"+++---", 6, breaker.Options{}}, // 50 %
		{"++++++++----", 0, breaker.Options{}},
		{"----++++", 0, breaker.Options{}}, // it opens by failures only
		{"----++++-", 9, breaker.Options{}},
		{"--", 2, breaker.Options{VolumeThreshold: 2}},
		{"+----", 0, breaker.Options{ErrorThresholdPercentage: 100}},
		{"-----", 5, breaker.Options{ErrorThresholdPercentage: 100}},
		{"+++++++++-", 10, breaker.Options{ErrorThresholdPercentage: 10}},
	} {
		b := newBreaker(t, c.o)
		open := 0
		for i, call := range c.calls {
			f := works
			if call == '-' {
				f = fails
			}
			_ = b.Do(t.Context(), f)
			if open == 0 && b.State() == breaker.Open {
				open = i + 1
			}
		}
		if open != c.open {
			t.Errorf("%s: opened by call %d, want %d", c.calls, open, c.open)
		}
	}
}

func TestTheWindowRolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{})
		for range 4 {
			_ = b.Do(t.Context(), fails)
		}
		time.Sleep(11 * time.Second)
		if c := b.Counts(); c != (breaker.Counts{}) {
			t.Errorf("after the window: %+v", c)
		}
		// One failure a second and one success: each step forgets one of each.
		for range 30 {
			_ = b.Do(t.Context(), fails)
			_ = b.Do(t.Context(), works)
			_ = b.Do(t.Context(), works)
			time.Sleep(time.Second)
		}
		if c := b.Counts(); b.State() != breaker.Closed || c.Failures < 9 || c.Failures > 10 || c.Successes != 2*c.Failures {
			t.Errorf("in a window of 10 s: %+v, %v", c, b.State())
		}
		// What came before is not forgotten all at once, as by a fixed window.
		for range 20 {
			_ = b.Do(t.Context(), fails)
		}
		if b.State() != breaker.Open {
			t.Errorf("%v, %+v", b.State(), b.Counts())
		}
	})
}

func TestCallsUnderWayDoNotDilute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{})
		var calls sync.WaitGroup
		for i := range 100 {
			calls.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				_ = b.Do(t.Context(), hangs)
			})
		}
		time.Sleep(3*time.Second + 45*time.Millisecond)
		if b.State() != breaker.Open {
			t.Errorf("five of a hundred have timed out and none has succeeded, and it is %v: %+v", b.State(), b.Counts())
		}
		calls.Wait()
	})
}

func TestDeadline(t *testing.T) {
	release := make(chan struct{})
	for name, c := range map[string]struct {
		f    func(context.Context) error
		want time.Duration
	}{
		"heeds its context":         {hangs, 3 * time.Second},
		"does not heed its context": {func(context.Context) error { <-release; return nil }, 3100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release = make(chan struct{})
				defer func() { close(release) }()
				b := newBreaker(t, breaker.Options{})
				began := time.Now()
				err := b.Do(t.Context(), c.f)
				if took := time.Since(began); took != c.want {
					t.Errorf("answered after %v", took)
				}
				if !errors.Is(err, breaker.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
				if c := b.Counts(); c.Failures != 1 || b.TimedOut() != 1 {
					t.Errorf("%+v, %d timed out", c, b.TimedOut())
				}
			})
		})
	}
}

// A caller with a deadline of his own that is shorter: the dependency was too slow.
// If that counted for nothing, a dependency that hangs would never be found out.
func TestCallersDeadlineIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{})
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began := time.Now()
			if err := b.Do(ctx, hangs); !errors.Is(err, breaker.ErrTimeout) || time.Since(began) != time.Second {
				t.Errorf("%v after %v", err, time.Since(began))
			}
			cancel()
		}
		if b.State() != breaker.Open {
			t.Errorf("it is %v: %+v", b.State(), b.Counts())
		}
	})
}

func TestCancelledCallersCountForNothing(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"with deadline": 0, "without": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, breaker.Options{Timeout: timeout})
				_ = b.Do(t.Context(), works)
				var calls sync.WaitGroup
				ctx, cancel := context.WithCancel(t.Context())
				for range 100 {
					calls.Go(func() {
						if err := b.Do(ctx, hangs); !errors.Is(err, context.Canceled) || errors.Is(err, breaker.ErrTimeout) {
							t.Errorf("%v", err)
						}
					})
				}
				synctest.Wait()
				cancel()
				calls.Wait()
				want := breaker.Counts{Requests: 101, Successes: 1, Excluded: 100}
				if c := b.Counts(); c != want || b.State() != breaker.Closed {
					t.Errorf("%+v, %v; want %+v", c, b.State(), want)
				}
				// And one who had given up before makes no call.
				if err := b.Do(ctx, func(context.Context) error { t.Error("called"); return nil }); !errors.Is(err, context.Canceled) {
					t.Errorf("%v", err)
				}
				// An error that says so without the caller's having given up is a failure.
				_ = b.Do(t.Context(), func(context.Context) error { return context.Canceled })
				if c := b.Counts(); c.Failures != 1 {
					t.Errorf("%+v", c)
				}
			})
		})
	}
}

func TestRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := opened(t, breaker.Options{Probes: 2})
		for range 1000 {
			err := b.Do(t.Context(), func(context.Context) error { t.Error("a call while it is open"); return nil })
			if !errors.Is(err, breaker.ErrOpen) {
				t.Fatalf("%v", err)
			}
		}
		if b.Rejected() != 1000 {
			t.Errorf("%d rejected", b.Rejected())
		}
		time.Sleep(9 * time.Second)
		if b.State() != breaker.Open {
			t.Errorf("%v after 9 s", b.State())
		}
		time.Sleep(1001 * time.Millisecond)
		if b.State() != breaker.HalfOpen {
			t.Errorf("%v after 10 s", b.State())
		}
		_ = b.Do(t.Context(), works)
		if b.State() != breaker.HalfOpen {
			t.Errorf("%v after one probe of two", b.State())
		}
		_ = b.Do(t.Context(), works)
		if b.State() != breaker.Closed {
			t.Errorf("%v after two probes", b.State())
		}
	})
}

// A probe that never returns is given up at the deadline: the circuit opens, and
// later another one is let through.
func TestHungProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := opened(t, breaker.Options{})
		time.Sleep(11 * time.Second)
		release, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- b.Do(t.Context(), func(context.Context) error { <-release; return nil }) }()
		synctest.Wait()
		if err := b.Do(t.Context(), works); !errors.Is(err, breaker.ErrOpen) || b.State() != breaker.HalfOpen {
			t.Errorf("beside the probe: %v, %v", err, b.State())
		}
		if err := <-ended; !errors.Is(err, breaker.ErrTimeout) || b.State() != breaker.Open {
			t.Errorf("%v, %v", err, b.State())
		}
		time.Sleep(11 * time.Second)
		if err := b.Do(t.Context(), works); err != nil || b.State() != breaker.Closed {
			t.Errorf("%v, %v", err, b.State())
		}
		close(release) // success, long after: it counts for nothing
		synctest.Wait()
		if c := b.Counts(); c != (breaker.Counts{}) {
			t.Errorf("%+v", c)
		}
	})
}

// A probe whose caller gives up frees its place for another.
func TestCancelledProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := opened(t, breaker.Options{})
		time.Sleep(11 * time.Second)
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			if err := b.Do(ctx, hangs); !errors.Is(err, context.Canceled) || b.State() != breaker.HalfOpen {
				t.Fatalf("%v, %v", err, b.State())
			}
		}
		if err := b.Do(t.Context(), works); err != nil || b.State() != breaker.Closed {
			t.Errorf("%v, %v", err, b.State())
		}
	})
}

func TestProbeLimit(t *testing.T) {
	for _, probes := range []int{1, 3} {
		t.Run(fmt.Sprint(probes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := opened(t, breaker.Options{Probes: probes})
				for round := range 20 {
					time.Sleep(11 * time.Second)
					var now, most, all, rejected atomic.Int64
					var calls sync.WaitGroup
					for range 100 {
						calls.Go(func() {
							err := b.Do(t.Context(), func(ctx context.Context) error {
								all.Add(1)
								n := now.Add(1)
								defer now.Add(-1)
								for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
								}
								time.Sleep(time.Second)
								if round < 19 {
									return errDown
								}
								return nil
							})
							if errors.Is(err, breaker.ErrOpen) {
								rejected.Add(1)
							}
						})
					}
					calls.Wait()
					if most.Load() > int64(probes) || all.Load() != int64(probes) || rejected.Load() != int64(100-probes) {
						t.Fatalf("%d calls, %d at a time, %d rejected", all.Load(), most.Load(), rejected.Load())
					}
				}
				if b.State() != breaker.Closed {
					t.Errorf("it is %v", b.State())
				}
			})
		})
	}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *breaker.Breaker
		var told []string
		b = newBreaker(t, breaker.Options{Name: "payments", Probes: 2, OnStateChange: func(e breaker.Event) {
			told = append(told, fmt.Sprint(e, " ", e.Counts.Excluded, " now ", b.State(), " ", b.Counts().Requests))
			_ = b.Do(t.Context(), works) // must neither deadlock nor be told of within itself
		}})
		_ = b.Do(t.Context(), works)
		for range 4 {
			_ = b.Do(t.Context(), fails)
		}
		time.Sleep(11 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		cancelled := func(context.Context) error { cancel(); return errDown }
		_ = b.Do(ctx, cancelled) // half-open; the call of the callback is the first probe
		_ = b.Do(t.Context(), fails)
		want := []string{
			"payments: closed → open (4 of 5 failed) 0 now open 0",
			"payments: open → half-open 0 now half-open 0",
			"payments: half-open → open (1 of 2 failed) 1 now open 0",
		}
		want[1] = told[1] // what the counts are at that time depends on the call that caused it
		if !slices.Equal(told, want) || !strings.HasPrefix(told[1], "payments: open → half-open 0 now half-open") {
			t.Errorf("told:\n%s", strings.Join(told, "\n"))
		}
	})
}

// Whatever the callbacks do: none is lost, none is told twice, and they are in order,
// one at a time.
func TestEventsOfManyCallers(t *testing.T) {
	before := runtime.NumGoroutine()
	synctest.Test(t, func(t *testing.T) {
		var told []breaker.Event
		var at atomic.Int32
		var b *breaker.Breaker
		b = newBreaker(t, breaker.Options{ResetTimeout: time.Second, OnStateChange: func(e breaker.Event) {
			if at.Add(1) != 1 {
				t.Error("two at a time")
			}
			defer at.Add(-1)
			told = append(told, e)
			b.State()
			runtime.Gosched()
			switch len(told) % 10 {
			case 3:
				panic("in the callback")
			}
		}})
		var calls sync.WaitGroup
		for i := range 50 {
			calls.Go(func() {
				for j := range 100 {
					_ = b.Do(t.Context(), func(context.Context) error {
						if (i+j/10)%3 != 0 {
							return errDown
						}
						return nil
					})
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		calls.Wait()
		final := b.State()
		from := breaker.Closed
		for _, e := range told {
			if e.From != from {
				t.Fatalf("%v after one that led to %v", e, from)
			}
			from = e.To
		}
		if from != final || len(told) < 9 {
			t.Errorf("told of %d, the last to %v; it is %v", len(told), from, final)
		}
	})
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before", after, before)
	}
}

func TestPanicAndGoexit(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"with deadline": 0, "without": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(t, breaker.Options{Timeout: timeout})
				err := b.Do(t.Context(), func(context.Context) error { panic("boom") })
				if err == nil || !strings.Contains(err.Error(), "boom") || !strings.Contains(err.Error(), "breaker_test.go") {
					t.Errorf("%v", err)
				}
				if err := b.Do(t.Context(), func(context.Context) error { panic(errDown) }); !errors.Is(err, errDown) {
					t.Errorf("%v", err)
				}
				if timeout == 0 { // else it ends this goroutine, which nothing can help
					if err := b.Do(t.Context(), func(context.Context) error { runtime.Goexit(); return nil }); err == nil {
						t.Error("Goexit is a success")
					}
				} else {
					_ = b.Do(t.Context(), fails)
				}
				if c := b.Counts(); c.Failures != 3 {
					t.Errorf("%+v", c)
				}
			})
		})
	}
}

func TestWhatIsAFailure(t *testing.T) {
	b := newBreaker(t, breaker.Options{})
	declined := breaker.Permanent(errors.New("card declined"))
	if err := b.Do(t.Context(), func(context.Context) error { return declined }); err != declined {
		t.Errorf("%v", err)
	}
	if c := b.Counts(); c.Successes != 1 {
		t.Errorf("%+v", c)
	}
	notFound := errors.New("404")
	b = newBreaker(t, breaker.Options{IsSuccessful: func(err error) bool {
		b.State() // no lock is held
		return errors.Is(err, notFound)
	}})
	_ = b.Do(t.Context(), func(context.Context) error { return notFound })
	_ = b.Do(t.Context(), func(context.Context) error { return declined })
	if c := b.Counts(); c.Successes != 1 || c.Failures != 1 {
		t.Errorf("%+v", c)
	}
	if breaker.Permanent(nil) != nil {
		t.Error("Permanent(nil) is an error")
	}
}

func TestGet(t *testing.T) {
	b := newBreaker(t, breaker.Options{})
	v, err := breaker.Get(t.Context(), b, func(context.Context) (int, error) { return 7, nil })
	if v != 7 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	v, err = breaker.Get(t.Context(), b, func(context.Context) (int, error) { return 7, errDown })
	if v != 0 || err != errDown {
		t.Errorf("%d, %v", v, err)
	}
}

// Retry outside, breaker, deadline inside: each attempt counts by itself, has the
// whole time, and none is made once the circuit is open.
func TestCompositionOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Options{Timeout: time.Second})
		calls, began := 0, time.Now()
		retry := func() (err error) {
			for range 10 {
				err = b.Do(t.Context(), func(ctx context.Context) error { calls++; return hangs(ctx) })
				if err == nil || errors.Is(err, breaker.ErrOpen) {
					break
				}
			}
			return err
		}
		if err := retry(); !errors.Is(err, breaker.ErrOpen) || calls != 5 || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %d calls and %v", err, calls, time.Since(began))
		}
	})
}

func TestOptions(t *testing.T) {
	for _, o := range []breaker.Options{
		{ErrorThresholdPercentage: -1}, {ErrorThresholdPercentage: 101}, {VolumeThreshold: -1}, {ResetTimeout: -1},
		{RollingCountTimeout: -1}, {RollingCountTimeout: 5}, {RollingCountBuckets: -1}, {Probes: -1},
	} {
		if _, err := breaker.New(o); err == nil || !strings.HasPrefix(err.Error(), "breaker: Options.") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
