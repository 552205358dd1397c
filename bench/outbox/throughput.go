package main

import (
	"context"
	"fmt"
	"time"
)

// throughput measures how fast a backlog is worked off.
func (b *bench) throughput(ctx context.Context) error {
	n := 30_000
	if b.short {
		n = 8_000
	}
	chosen := b.chosen()
	for _, size := range []int{256, 4096} {
		for run := range b.runs {
			for _, r := range chosen {
				rate, err := b.backlog(ctx, r, n, size)
				if err != nil {
					return fmt.Errorf("%s: %w", r.name, err)
				}
				note("throughput: %d bytes, run %d of %d, %s: %.0f/s", size, run+1, b.runs, r.name, rate)
				b.results = append(b.results, result{What: "throughput", Relay: r.name, Size: size, Run: run, Rate: rate})
			}
		}
	}
	b.printThroughput(n)
	return nil
}

func (b *bench) backlog(ctx context.Context, r relay, n, size int) (rate float64, err error) {
	if r.slow {
		n /= 20
	}
	w, err := newWorld(ctx)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	events := makeEvents(n, max(1, n/5), size)
	if !r.live {
		if err := w.add(ctx, r, events, 1000); err != nil {
			return 0, err
		}
	}
	if _, err := w.AdminDB.Exec(ctx, "CHECKPOINT"); err != nil {
		return 0, err
	}
	p, err := w.start(r)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	ended := p.ended
	if r.live {
		if err := w.streaming(ctx); err != nil {
			return 0, err
		}
		if err := w.add(ctx, r, events, n); err != nil {
			return 0, err
		}
	}
	var began time.Time
	before := 0
	for {
		depth, err := w.depth()
		if err != nil {
			return 0, err
		}
		if began.IsZero() && depth > 0 {
			began, before = time.Now(), depth
		}
		if depth >= n {
			done, err := r.outbox.settled(ctx, w.DB)
			if err != nil {
				return 0, err
			}
			if done {
				break
			}
		}
		select {
		case <-ended:
			if !r.ceiling || p.err != nil {
				return 0, fmt.Errorf("the relay ended: %w", p.err)
			}
			ended = nil // done; the queue's length is a moment behind
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return float64(n-before) / time.Since(began).Seconds(), nil
}

// streaming waits until the slot is being read from.
func (w *world) streaming(ctx context.Context) error {
	for {
		var ok bool
		err := w.AdminDB.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_replication r JOIN pg_stat_activity a USING (pid) WHERE a.datname = $1 AND r.state = 'streaming')", w.Name).Scan(&ok)
		if err != nil || ok {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
