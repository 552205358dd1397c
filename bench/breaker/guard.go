package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/sony/gobreaker/v2"

	"crashcourse/bench/internal/figures"
	"crashcourse/pkg/breaker"
)

// guard is a way to call something through a circuit breaker, all with a rate of 50 %
// over a window of 10 s in 10 steps.
type guard struct {
	name string
	call func(context.Context) error
}

// bare is what the others are compared with.
const bare = "gobreaker/v2"

//go:noinline
func nothing(context.Context) error { return nil }

func guards() ([]guard, error) {
	quiet := slog.New(slog.DiscardHandler)
	ours, err := breaker.New(breaker.Options{Timeout: -1, Logger: quiet})
	if err != nil {
		return nil, err
	}
	oursWithin, err := breaker.New(breaker.Options{Timeout: 3 * time.Second, Logger: quiet})
	if err != nil {
		return nil, err
	}
	sony := gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Interval: 10 * time.Second, BucketPeriod: time.Second, Timeout: 10 * time.Second,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.TotalFailures+c.TotalSuccesses >= 5 && c.TotalFailures >= c.TotalSuccesses
		},
	})
	safe := circuitbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 5, 10*time.Second).WithDelay(10 * time.Second).Build()
	executor := failsafe.With[any](safe)
	executorWithin := failsafe.With[any](safe, timeout.New[any](3*time.Second))
	return []guard{
		{bare, func(ctx context.Context) error {
			_, err := sony.Execute(func() (struct{}, error) { return struct{}{}, nothing(ctx) })
			return err
		}},
		{"pkg/breaker, no deadline", func(ctx context.Context) error { return ours.Do(ctx, nothing) }},
		{"failsafe-go, breaker alone", func(ctx context.Context) error {
			if !safe.TryAcquirePermit() {
				return circuitbreaker.ErrOpen
			}
			err := nothing(ctx)
			if err != nil {
				safe.RecordError(err)
			} else {
				safe.RecordSuccess()
			}
			return err
		}},
		{"failsafe-go, executor", func(ctx context.Context) error {
			return executor.WithContext(ctx).Run(func() error { return nothing(ctx) })
		}},
		{"context.WithTimeout alone", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			return nothing(ctx)
		}},
		{"gobreaker/v2 and context.WithTimeout", func(ctx context.Context) error {
			_, err := sony.Execute(func() (struct{}, error) {
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				return struct{}{}, nothing(ctx)
			})
			return err
		}},
		{"pkg/breaker", func(ctx context.Context) error { return oursWithin.Do(ctx, nothing) }},
		{"failsafe-go, executor with timeout", func(ctx context.Context) error {
			return executorWithin.WithContext(ctx).RunWithExecution(func(e failsafe.Execution[any]) error { return nothing(e.Context()) })
		}},
	}, nil
}

// guard measures what a guarded call costs that does nothing.
func (b *bench) guard(ctx context.Context) error {
	all, err := guards()
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(g guard) bool { return g.name != bare && !b.only.MatchString(g.name) })
	runs, slicesOfRun := 2*b.runs+1, 200
	if b.short {
		runs, slicesOfRun = 3, 50
	}
	note("guard: %d runs", runs)
	for _, goroutines := range []int{1, 16} {
		for range runs {
			// Short slices in turn, and their median: whatever else the machine does
			// strikes all alike.
			times := make([][]float64, len(all))
			for range slicesOfRun {
				for i, g := range all {
					times[i] = append(times[i], slice(ctx, g, goroutines))
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
			for i, g := range all {
				r := result{what: "guard", name: g.name, group: goroutines, nanoseconds: figures.Of(times[i]).Median}
				if goroutines == 1 {
					r.allocations = testing.AllocsPerRun(1000, func() { _ = g.call(ctx) })
				}
				b.results = append(b.results, r)
			}
		}
	}
	b.printGuard(all, runs)
	return nil
}

// slice returns the nanoseconds that a call takes: the time of so many calls by all
// goroutines, divided by their number.
func slice(ctx context.Context, g guard, goroutines int) float64 {
	const calls = 640
	each := calls / goroutines
	var ready, done sync.WaitGroup
	begin := make(chan struct{})
	for range goroutines {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-begin
			for range each {
				_ = g.call(ctx)
			}
		})
	}
	ready.Wait()
	began := time.Now()
	close(begin)
	done.Wait()
	return float64(time.Since(began)) / float64(each*goroutines)
}

func (b *bench) printGuard(all []guard, runs int) {
	fmt.Printf("### A guarded call that does nothing\n\nMedian of %d runs, lowest and highest in brackets. The ratios are taken run by run.\n\n", runs)
	fmt.Print("| | ns, 1 goroutine | times gobreaker | ns, 16 goroutines | times gobreaker | allocations |\n|---|---|---|---|---|---|\n")
	for _, g := range all {
		fmt.Printf("| %s |", g.name)
		for _, goroutines := range []int{1, 16} {
			ns := func(r result) float64 { return r.nanoseconds }
			own := b.of("guard", g.name, goroutines, ns)
			base := b.of("guard", bare, goroutines, ns)
			fmt.Printf(" %s | %s |", figures.Of(own).Text("%.0f"), figures.Ratios(own, base, 1).Text("%.2f"))
		}
		fmt.Printf(" %.0f |\n", figures.Of(b.of("guard", g.name, 1, func(r result) float64 { return r.allocations })).Median)
	}
	fmt.Println()
}
