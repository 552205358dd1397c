// Package actor is an alternative answer to breaker/probe: one goroutine owns the
// state, and calls ask it and tell it over channels.
package actor

import (
	"context"
	"errors"
	"time"

	"crashcourse/exercises/breaker"
)

type request struct{ answer chan ticket }

// ticket lets a call through. epoch is of the state that let it.
type ticket struct {
	ok    bool
	epoch int
}

type report struct {
	epoch int
	left  bool
	fails bool
}

// Probe starts the owner of the state, which lives as long as the process.
func Probe(s breaker.Settings, charge func(context.Context, breaker.Payment) error) func(context.Context, breaker.Payment) error {
	requests, reports := make(chan request), make(chan report)
	go own(s, requests, reports)
	return func(ctx context.Context, p breaker.Payment) error {
		r := request{make(chan ticket, 1)}
		requests <- r
		t := <-r.answer
		if !t.ok {
			return breaker.ErrOpen
		}
		err := errors.New("it panicked")
		defer func() {
			reports <- report{t.epoch, ctx.Err() == context.Canceled, err != nil && !errors.Is(err, breaker.ErrDeclined)}
		}()
		op, cancel := context.WithTimeout(ctx, s.Timeout)
		defer cancel()
		err = charge(op, p)
		return err
	}
}

type past struct {
	at    time.Time
	fails bool
}

func own(s breaker.Settings, requests <-chan request, reports <-chan report) {
	var (
		epoch  int
		open   bool // and half-open, once places is not zero
		places int
		good   int
		timer  <-chan time.Time
		window []past
	)
	trip := func() {
		epoch++
		open, places, good, window = true, 0, 0, nil
		timer = time.After(s.Reset)
	}
	for {
		select {
		case <-timer:
			places, timer = s.Probes, nil
		case r := <-requests:
			t := ticket{ok: !open || places > 0, epoch: epoch}
			if open && t.ok {
				places--
			}
			r.answer <- t
		case r := <-reports:
			switch {
			case r.epoch != epoch:
			case open && r.left:
				places++
			case open && r.fails:
				trip()
			case open:
				if good++; good == s.Probes {
					epoch++
					open = false
				}
			case r.left:
			default:
				now := time.Now()
				window = append(window, past{now, r.fails})
				for now.Sub(window[0].at) > s.Window {
					window = window[1:]
				}
				failed := 0
				for _, w := range window {
					if w.fails {
						failed++
					}
				}
				if r.fails && len(window) >= s.Volume && 100*failed >= s.FailureRate*len(window) {
					trip()
				}
			}
		}
	}
}
