package breaker_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/sony/gobreaker/v2"

	"crashcourse/pkg/breaker"
)

// BenchmarkDo guards a call that does nothing, beside gobreaker alone. `make bench`
// compares them in runs that alternate.
func BenchmarkDo(b *testing.B) {
	none := newBreaker(b, breaker.Options{Timeout: -1})
	deadline := newBreaker(b, breaker.Options{})
	bare := gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{Interval: 10e9, BucketPeriod: 1e9})
	for _, c := range []struct {
		name string
		call func(context.Context) error
	}{
		{"gobreaker", func(ctx context.Context) error {
			_, err := bare.Execute(func() (struct{}, error) { return struct{}{}, works(ctx) })
			return err
		}},
		{"no deadline", func(ctx context.Context) error { return none.Do(ctx, works) }},
		{"deadline", func(ctx context.Context) error { return deadline.Do(ctx, works) }},
	} {
		for _, goroutines := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", c.name, goroutines), func(b *testing.B) {
				b.ReportAllocs()
				ctx := b.Context()
				if goroutines == 1 {
					for b.Loop() {
						_ = c.call(ctx)
					}
					return
				}
				b.SetParallelism(goroutines / 2)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						_ = c.call(ctx)
					}
				})
			})
		}
	}
}
