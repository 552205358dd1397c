package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// faults counts what is lost, delivered twice or out of order.
func (b *bench) faults(ctx context.Context) error {
	length := 15 * time.Second
	if b.short {
		length = 6 * time.Second
	}
	for _, fault := range []struct {
		name    string
		trouble func(context.Context, *world, *supervised) (int, error)
	}{{"kill -9", killing}, {"no queue bound", unbinding}} {
		for run := range b.runs {
			for _, r := range b.chosen() {
				if r.ceiling {
					continue
				}
				res, err := b.steady(ctx, r, length, 256, fault.trouble)
				if err != nil {
					return fmt.Errorf("%s: %w", r.name, err)
				}
				res.What, res.Run, res.Fault = "faults", run, fault.name
				note("faults: %s, run %d of %d, %s: %d times, of %d: %d lost, %d twice, %d out of order", fault.name, run+1, b.runs, r.name, res.Faults, res.Sent, res.Lost, res.Twice, res.Disorder)
				b.results = append(b.results, res)
			}
		}
	}
	b.printFaults()
	return nil
}

// killing kills the relay again and again.
func killing(ctx context.Context, _ *world, s *supervised) (n int, err error) {
	for {
		select {
		case <-ctx.Done():
			return n, nil
		case <-time.After(200*time.Millisecond + rand.N(600*time.Millisecond)):
		}
		s.kill()
		n++
	}
}

// unbinding leaves the exchange without a queue for half a second, again and
// again.
func unbinding(ctx context.Context, w *world, _ *supervised) (n int, err error) {
	for {
		select {
		case <-ctx.Done():
			return n, nil
		case <-time.After(1500 * time.Millisecond):
		}
		if err := w.unbind(); err != nil {
			return n, err
		}
		n++
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
		if err := w.bind(); err != nil {
			return n, err
		}
	}
}

// supervised is a relay that is started again whenever its process ends.
type supervised struct {
	w *world
	r relay

	mu      sync.Mutex
	process *process
	over    bool
}

func (s *supervised) start() error {
	p, err := s.w.start(s.r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.process = p
	s.mu.Unlock()
	go func() {
		<-p.ended
		s.mu.Lock()
		over := s.over
		s.mu.Unlock()
		if !over {
			if err := s.start(); err != nil {
				note("start the relay again: %v", err)
			}
		}
	}()
	return nil
}

func (s *supervised) kill() {
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	p.kill()
}

func (s *supervised) end() {
	s.mu.Lock()
	s.over = true
	p := s.process
	s.mu.Unlock()
	p.stop()
}
