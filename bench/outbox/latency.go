package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/broker"
)

const steadyRate = 500 // events a second

// latency measures how long an event takes from its commit to a consumer.
func (b *bench) latency(ctx context.Context) error {
	length := 15 * time.Second
	if b.short {
		length = 5 * time.Second
	}
	for run := range b.runs {
		for _, r := range b.chosen() {
			if r.ceiling {
				continue
			}
			res, err := b.steady(ctx, r, length, 256, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			res.What, res.Run = "latency", run
			note("latency: run %d of %d, %s: p50 %.1f ms, p99 %.1f ms", run+1, b.runs, r.name, res.P50, res.P99)
			b.results = append(b.results, res)
		}
	}
	b.printLatency(length)
	return nil
}

// steady runs a relay under a steady load. In the meantime trouble, if there is
// any, makes trouble; it returns how often.
func (b *bench) steady(ctx context.Context, r relay, length time.Duration, size int, trouble func(context.Context, *world, *supervised) (int, error)) (res result, err error) {
	res = result{Relay: r.name, Size: size}
	w, err := newWorld(ctx)
	if err != nil {
		return res, err
	}
	defer w.Close()
	arrivals, stop, err := w.consume(ctx)
	if err != nil {
		return res, err
	}
	defer stop()
	s := &supervised{w: w, r: r}
	if err := s.start(); err != nil {
		return res, err
	}
	defer s.end()
	if r.live {
		if err := w.streaming(ctx); err != nil {
			return res, err
		}
	}

	load, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	if trouble != nil {
		g.Go(func() (err error) {
			res.Faults, err = trouble(load, w, s)
			return err
		})
	}
	committed, err := w.load(ctx, r, length, size)
	cancel()
	if err := g.Wait(); err != nil {
		return res, err
	}
	if err != nil {
		return res, err
	}
	res.Sent = len(committed)
	seen := arrivals.settle(ctx, len(committed))
	res.measure(committed, seen, length)
	return res, ctx.Err()
}

// load commits events at the steady rate, one a transaction, and returns when
// each was committed. The events of one aggregate never overlap.
func (w *world) load(ctx context.Context, r relay, length time.Duration, size int) (map[string]time.Time, error) {
	const writers, aggregates = 8, 40
	start := time.Now()
	var mu sync.Mutex
	committed := map[string]time.Time{}
	var g errgroup.Group
	for writer := range writers {
		g.Go(func() error {
			for i := writer; ; i += writers {
				due := start.Add(time.Duration(i) * time.Second / steadyRate)
				if due.Sub(start) > length || ctx.Err() != nil {
					return nil
				}
				time.Sleep(time.Until(due))
				// aggregates is a multiple of writers: each writer has its own.
				e := makeEvent(i%aggregates, i/aggregates, size)
				if err := w.add(ctx, r, []event{e}, 1); err != nil {
					return err
				}
				at := time.Now()
				mu.Lock()
				committed[e.id] = at
				mu.Unlock()
			}
		})
	}
	return committed, g.Wait()
}

// measure fills in the figures. The first fifth is warming up, and does not count
// for the latency.
func (res *result) measure(committed map[string]time.Time, seen []arrival, length time.Duration) {
	var first time.Time
	for _, at := range committed {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	got := map[string]bool{}
	last := map[string]int{}
	var took []float64
	for _, a := range seen {
		if got[a.id] {
			res.Twice++
			continue
		}
		got[a.id] = true
		if n, ok := last[a.aggregate]; ok && a.n < n {
			res.Disorder++
		} else {
			last[a.aggregate] = a.n
		}
		if at, ok := committed[a.id]; ok && at.Sub(first) > length/5 {
			took = append(took, max(0, float64(a.at.Sub(at).Microseconds())/1000))
		}
	}
	for id := range committed {
		if !got[id] {
			res.Lost++
		}
	}
	slices.Sort(took)
	if len(took) > 0 {
		res.P50, res.P99, res.Max = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	}
}

// arrivals is what a consumer has got.
type arrivals struct {
	mu   sync.Mutex
	all  []arrival
	ids  map[string]bool
	last time.Time
}

// consume starts a consumer over a connection of its own.
func (w *world) consume(ctx context.Context) (*arrivals, func(), error) {
	conn, err := broker.Dial(ctx, w.AMQPURL)
	if err != nil {
		return nil, nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, nil, err
	}
	deliveries, err := ch.Consume("q", "", true, false, false, false, nil)
	if err != nil {
		return nil, nil, err
	}
	a := &arrivals{ids: map[string]bool{}, last: time.Now()}
	go a.take(deliveries)
	return a, func() { _ = conn.Close() }, nil
}

func (a *arrivals) take(deliveries <-chan amqp.Delivery) {
	for d := range deliveries {
		one, err := readArrival(d)
		if err != nil {
			note("a message cannot be read: %v", err)
			continue
		}
		a.mu.Lock()
		a.all = append(a.all, one)
		a.ids[one.id] = true
		a.last = one.at
		a.mu.Unlock()
	}
}

// settle waits until n different events have arrived, or none has for five
// seconds, and returns what arrived.
func (a *arrivals) settle(ctx context.Context, n int) []arrival {
	a.mu.Lock()
	a.last = time.Now()
	a.mu.Unlock()
	for {
		a.mu.Lock()
		done := len(a.ids) >= n || time.Since(a.last) > 5*time.Second || ctx.Err() != nil
		all := a.all
		a.mu.Unlock()
		if done {
			return all
		}
		time.Sleep(10 * time.Millisecond)
	}
}
