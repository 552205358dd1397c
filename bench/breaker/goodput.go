package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"

	"crashcourse/bench/internal/figures"
	"crashcourse/pkg/breaker"
)

// The shop answers so many requests at a time, as one with a pool of connections
// does. Every second request needs the bank. The times of the breaker are a tenth of
// its defaults, so a second here is ten in a real shop. A customer wants his answer
// within inTime, and leaves after patience. If he left before the bank's deadline, his
// calls would count for nothing, and no circuit would open.
const (
	shopPlaces   = 10
	shopRate     = 100 // requests a second
	bankTimeout  = 300 * time.Millisecond
	resetTimeout = time.Second
	window       = time.Second
	inTime       = 250 * time.Millisecond
	patience     = 3 * time.Second
)

// protection is what the shop has between itself and the bank.
type protection struct {
	name string
	call func(ctx context.Context, f func(context.Context) error) error
}

func protections() ([]protection, error) {
	quiet := slog.New(slog.DiscardHandler)
	bulkhead, err := breaker.NewBulkhead(breaker.BulkheadOptions{MaxConcurrent: shopPlaces / 2})
	if err != nil {
		return nil, err
	}
	o := breaker.Options{Timeout: bankTimeout, ResetTimeout: resetTimeout, RollingCountTimeout: window, Logger: quiet}
	alone, err := breaker.New(o)
	if err != nil {
		return nil, err
	}
	o.Bulkhead = bulkhead
	both, err := breaker.New(o)
	if err != nil {
		return nil, err
	}
	return []protection{
		{"a deadline alone", func(ctx context.Context, f func(context.Context) error) error {
			ctx, cancel := context.WithTimeout(ctx, bankTimeout)
			defer cancel()
			return f(ctx)
		}},
		{"breaker", alone.Do},
		{"breaker and bulkhead", both.Do},
	}, nil
}

// period is what happened in one third of a run.
type period struct {
	browsing, paying, all atomic.Int64 // answered in time, and all of either kind
	calls                 atomic.Int64 // of the bank
}

// goodput measures how many customers are answered in time while the bank hangs.
func (b *bench) goodput(ctx context.Context) error {
	length := 6 * time.Second
	if b.short {
		length = 3 * time.Second
	}
	for run := range b.runs {
		all, err := protections()
		if err != nil {
			return err
		}
		for _, p := range all {
			if !b.only.MatchString(p.name) {
				continue
			}
			note("goodput: run %d, %s", run+1, p.name)
			periods, err := trade(ctx, p, length)
			if err != nil {
				return err
			}
			for i := range periods {
				q := &periods[i]
				half := float64(q.all.Load()) / 2
				b.results = append(b.results, result{what: "goodput", name: p.name, group: i,
					browsing: 100 * float64(q.browsing.Load()) / half, paying: 100 * float64(q.paying.Load()) / half,
					calls: float64(q.calls.Load()) / length.Seconds()})
			}
		}
	}
	b.printGoodput(length)
	return nil
}

// trade runs a shop with a bank that answers, hangs, and answers again, each for so
// long.
func trade(ctx context.Context, p protection, length time.Duration) (*[3]period, error) {
	var periods [3]period
	var now atomic.Int64 // which period it is
	bank := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		i := now.Load()
		periods[i].calls.Add(1)
		if i == 1 {
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
		time.Sleep(10 * time.Millisecond)
	}))
	defer bank.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	defer client.CloseIdleConnections()
	get := func(ctx context.Context, url string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode >= 300 {
			return errors.New(res.Status)
		}
		return nil
	}

	places := make(chan struct{}, shopPlaces)
	shop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		case <-r.Context().Done():
			return // the customer has gone
		}
		if r.URL.Path == "/browse" {
			return
		}
		if err := p.call(r.Context(), func(ctx context.Context) error { return get(ctx, bank.URL) }); err != nil {
			w.WriteHeader(http.StatusAccepted) // queued
		}
	}))
	defer shop.Close()

	var customers sync.WaitGroup
	defer customers.Wait()
	began := time.Now()
	tick := time.NewTicker(time.Second / shopRate)
	defer tick.Stop()
	for i := 0; ; i++ {
		third := int64(time.Since(began) / length)
		if third > 2 {
			break
		}
		now.Store(third)
		customers.Go(func() {
			q := &periods[third]
			q.all.Add(1)
			path, counter := "/browse", &q.browsing
			if i%2 == 0 {
				path, counter = "/pay", &q.paying
			}
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			asked := time.Now()
			if get(ctx, shop.URL+path) == nil && time.Since(asked) < inTime {
				counter.Add(1)
			}
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	customers.Wait()
	return &periods, nil
}

func (b *bench) printGoodput(length time.Duration) {
	fmt.Printf("### A shop whose bank hangs\n\n%d requests a second, half of them pay; %d are served at a time; the bank hangs for %v of %v. Percent answered within %v, median of %d runs, lowest and highest in brackets.\n\n",
		shopRate, shopPlaces, length, 3*length, inTime, b.runs)
	fmt.Print("| | browse, before | pay | browse, bank hangs | pay, or queued | calls/s of the bank | browse, after | pay |\n|---|---|---|---|---|---|---|---|\n")
	all, _ := protections()
	for _, p := range all {
		if !b.only.MatchString(p.name) {
			continue
		}
		fmt.Printf("| %s |", p.name)
		for i := range 3 {
			fmt.Printf(" %s | %s |", figures.Of(b.of("goodput", p.name, i, func(r result) float64 { return r.browsing })).Text("%.0f"),
				figures.Of(b.of("goodput", p.name, i, func(r result) float64 { return r.paying })).Text("%.0f"))
			if i == 1 {
				fmt.Printf(" %s |", figures.Of(b.of("goodput", p.name, i, func(r result) float64 { return r.calls })).Text("%.1f"))
			}
		}
		fmt.Println()
	}
	fmt.Println()
}
