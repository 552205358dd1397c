package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"crashcourse/bench/internal/figures"
)

// wakes are ways to tell the relay of a commit.
var wakes = []struct{ name, ddl string }{
	{"no trigger", "DROP TRIGGER outbox_wake ON outbox"},
	{"the trigger of this package", ""},
	{"NOTIFY in each transaction", `DROP TRIGGER outbox_wake ON outbox;
		CREATE FUNCTION wake_each() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('outbox', ''); RETURN NULL; END $$;
		CREATE TRIGGER wake_each AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION wake_each()`},
}

const committers = 32

// wake measures what being told of commits costs those who commit.
func (b *bench) wake(ctx context.Context) error {
	length := 5 * time.Second
	if b.short {
		length = 2 * time.Second
	}
	for run := range b.runs {
		for _, way := range wakes {
			rate, err := commitRate(ctx, way.ddl, length)
			if err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			note("wake: run %d of %d, %s: %.0f/s", run+1, b.runs, way.name, rate)
			b.results = append(b.results, result{What: "wake", Relay: way.name, Run: run, Rate: rate})
		}
	}
	fmt.Printf("### Transactions a second of %d writers, one event each, while somebody listens\n\nMedian of %d runs, lowest and highest in brackets.\n\n| | transactions/s | of those without |\n|---|---|---|\n", committers, b.runs)
	rate := func(r result) float64 { return r.Rate }
	without := b.of("wake", wakes[0].name, 0, rate)
	for _, way := range wakes {
		own := b.of("wake", way.name, 0, rate)
		fmt.Printf("| %s | %s | %s |\n", way.name, figures.Of(own).Text("%.0f"), figures.Ratios(own, without, 100).Text("%.0f %%"))
	}
	fmt.Println()
	return nil
}

func commitRate(ctx context.Context, ddl string, length time.Duration) (float64, error) {
	w, err := newWorld(ctx)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	if _, err := w.DB.Exec(ctx, ddl); err != nil {
		return 0, err
	}
	listener, err := pgx.Connect(ctx, w.DatabaseURL)
	if err != nil {
		return 0, err
	}
	defer listener.Close(ctx)
	if _, err := listener.Exec(ctx, "LISTEN outbox"); err != nil {
		return 0, err
	}
	config := w.DB.Config()
	config.MaxConns = committers
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return 0, err
	}
	defer pool.Close()

	until, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	go func() {
		for until.Err() == nil {
			_, _ = listener.WaitForNotification(until)
		}
	}()
	var committed atomic.Int64
	var g errgroup.Group
	for a := range committers {
		g.Go(func() error {
			for n := 0; until.Err() == nil; n++ {
				e := makeEvent(a, n, 256)
				if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return ours{}.add(ctx, tx, []event{e}) }); err != nil {
					return err
				}
				committed.Add(1)
			}
			return nil
		})
	}
	err = g.Wait()
	return float64(committed.Load()) / length.Seconds(), err
}
