package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/outbox"
)

func newPool(t *testing.T, config *pgxpool.Config) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestRelayPublishes(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		w.enqueue("a", "order.placed", 3) // before the relay
		r, stop := w.run(outbox.Options{Source: source, Conn: w.Conn, Prepare: func(m outbox.Message, p *amqp.Publishing) {
			p.AppId = "shop " + m.Type
			p.MessageId = "none"
		}})
		w.awaitAll()
		w.awaitSession(source)
		w.enqueue("b", "order.paid", 2) // and while it runs
		w.enqueue("a", "order.paid", 2)
		if dups := w.awaitAll(); dups != 0 {
			t.Errorf("%d duplicates", dups)
		}
		ids := map[string]bool{}
		for _, id := range w.enqueued {
			ids[id.String()] = true
		}
		for _, d := range w.deliveries() {
			if !ids[d.MessageId] || d.ContentType != "application/json" || d.DeliveryMode != amqp.Persistent || d.AppId != "shop "+d.RoutingKey ||
				d.Type != d.RoutingKey || time.Since(d.Timestamp).Abs() > time.Hour || !strings.Contains(string(d.Body), `"order_id"`) {
				t.Errorf("arrived: %+v", d)
			}
		}
		s, err := r.Stats(t.Context())
		w.must(err)
		if s.Backlog != 0 || s.Lag != 0 || s.Held != 0 || s.Published != 7 || s.SlotActive != (source == outbox.CDC) || (s.SlotLag >= 0) != (source == outbox.CDC) {
			t.Errorf("stats: %+v", s)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if w.Conn.IsClosed() {
			t.Error("the relay closed the connection that it was lent")
		}
	})
}

// A transaction that takes long commits an event with a lower seq than those
// that are published already.
func TestRelayLateCommit(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		w.run(outbox.Options{Source: source})
		w.awaitSession(source)
		tx, err := w.DB.Begin(t.Context())
		w.must(err)
		late, err := outbox.Enqueue(t.Context(), tx, outbox.Event{AggregateID: "late", Type: "order.placed"})
		w.must(err)
		for i := range 3 {
			w.enqueue(fmt.Sprint("early", i), "order.placed", 1)
		}
		w.await("the early ones arrive", func() bool { return len(w.firsts()) == 3 })
		w.must(tx.Commit(t.Context()))
		w.enqueued = append(w.enqueued, late...)
		w.awaitAll()
	})
}

func TestRelaysInParallelKeepOrder(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		for i := range 3 {
			// They may even differ in their partitions.
			w.run(outbox.Options{Source: source, Partitions: i + 1, Batch: 7})
		}
		var g errgroup.Group
		for a := range 10 {
			g.Go(func() error {
				for range 15 {
					if err := w.tryEnqueue(fmt.Sprint("a", a), "order.changed", 1+a%3); err != nil {
						return err
					}
				}
				return nil
			})
		}
		w.must(g.Wait())
		if dups := w.awaitAll(); dups != 0 {
			t.Errorf("%d duplicates, although nothing failed", dups)
		}
	})
}

// Nobody is woken but by the trigger.
func TestNotifyMissesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(outbox.Options{Source: outbox.Notify, PollInterval: time.Hour})
	for round := range 5 {
		var g errgroup.Group
		for a := range 8 {
			g.Go(func() error {
				for range 5 {
					if err := w.tryEnqueue(fmt.Sprint(round, "-", a), "order.changed", 1); err != nil {
						return err
					}
				}
				return nil
			})
		}
		w.must(g.Wait())
		w.awaitAll()
	}
}

// The trigger is made by Migrate. Without it there is still polling.
func TestNotifyWithoutTrigger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.DB.Exec(t.Context(), "DROP TRIGGER outbox_wake ON outbox")
	w.must(err)
	w.run(outbox.Options{Source: outbox.Notify, PollInterval: 50 * time.Millisecond})
	w.enqueue("a", "order.placed", 1)
	w.awaitAll()
}

// A relay in a role that does not own the table makes what it needs elsewhere.
func TestRelayOverForeignTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.DB.Exec(t.Context(), "DROP TABLE outbox_held; CREATE SCHEMA mine")
	w.must(err)
	config := w.DB.Config()
	config.ConnConfig.RuntimeParams["search_path"] = "mine, public"
	w.DB = newPool(t, config)
	for range 3 {
		w.run(outbox.Options{})
	}
	w.enqueue("a", "order.placed", 1)
	w.awaitAll()
}

func TestRelayDeletes(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		w.run(outbox.Options{Source: source, Delete: true})
		w.enqueue("a", "order.placed", 20)
		w.await("all events arrive", func() bool { return len(w.firsts()) == 20 })
		w.await("all rows are gone", func() bool { return w.count("true") == 0 })
		if got, want := w.numbers("a"), sequence(20); !slices.Equal(got, want) {
			t.Errorf("arrived in the order %v", got)
		}
	})
}

func TestRelayCleans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(outbox.Options{Keep: time.Millisecond, CleanInterval: 10 * time.Millisecond})
	w.enqueue("a", "order.placed", 20)
	w.await("all rows are gone", func() bool { return w.count("true") == 0 })
	if n := len(w.firsts()); n != 20 {
		t.Errorf("%d arrived", n)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enqueue("a", "order.placed", 2500)
	_, err := w.DB.Exec(t.Context(), "UPDATE outbox SET published_at = now() - interval '1 hour' WHERE seq % 5 > 0")
	w.must(err)
	w.enqueue("b", "order.placed", 10)
	_, err = w.DB.Exec(t.Context(), "UPDATE outbox SET published_at = now() WHERE aggregate_id = 'b'")
	w.must(err)
	if n, err := outbox.Clean(t.Context(), w.DB, 2*time.Hour); n != 0 || err != nil {
		t.Errorf("too young: %d, %v", n, err)
	}
	if n, err := outbox.Clean(t.Context(), w.DB, time.Minute); n != 2000 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	if pending, young := w.count("published_at IS NULL"), w.count("published_at IS NOT NULL"); pending != 500 || young != 10 {
		t.Errorf("left: %d pending, %d young", pending, young)
	}
}

// What is in memory at a time is limited.
func TestRelayLargePayloads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.DB.Exec(t.Context(), `ALTER TABLE outbox ALTER payload SET STORAGE EXTERNAL;
		INSERT INTO outbox (message_id, aggregate_id, type, payload) SELECT gen_random_uuid(), 'a' || n % 2, 'big', to_jsonb(repeat('x', 6000000)) FROM generate_series(1, 4) AS n`)
	w.must(err)
	w.run(outbox.Options{})
	w.await("all arrive", func() bool { return len(w.firsts()) == 4 })
	w.awaitAll()
}

func TestRunEndsWhenTryingAgainCannotHelp(t *testing.T) {
	t.Run("the lent connection is closed", func(t *testing.T) {
		everySource(t, func(t *testing.T, source outbox.Source) {
			w := newWorld(t)
			r, err := outbox.NewRelay(w.DB, outbox.Options{Source: source, Conn: w.Conn})
			w.must(err)
			ended := make(chan error, 1)
			go func() { ended <- r.Run(context.Background()) }()
			w.enqueue("a", "order.placed", 1)
			w.awaitAll()
			w.must(w.Conn.Close()) // while it is idle
			select {
			case err := <-ended:
				if !errors.Is(err, outbox.ErrConnClosed) {
					t.Errorf("got %v", err)
				}
			case <-time.After(patience):
				t.Error("it goes on")
			}
		})
	})
	t.Run("a column is missing", func(t *testing.T) {
		w := newWorld(t)
		_, err := w.DB.Exec(t.Context(), "ALTER TABLE outbox DROP COLUMN payload")
		w.must(err)
		r, err := outbox.NewRelay(w.DB, outbox.Options{Conn: w.Conn})
		w.must(err)
		if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "payload") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("it runs already", func(t *testing.T) {
		w := newWorld(t)
		r, _ := w.run(outbox.Options{Conn: w.Conn})
		w.enqueue("a", "order.placed", 1)
		w.awaitAll()
		if err := r.Run(t.Context()); err == nil {
			t.Error("no error")
		}
	})
}

func TestRunAgain(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		r, err := outbox.NewRelay(w.DB, outbox.Options{Source: source, Dial: func(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, w.AMQPURL) }})
		w.must(err)
		for range 2 {
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- r.Run(ctx) }()
			w.enqueue("a", "order.placed", 1)
			w.awaitAll()
			stop()
			w.must(<-ended)
		}
		if dups := w.awaitAll(); dups != 0 {
			t.Errorf("%d duplicates", dups)
		}
	})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dial := func(context.Context) (*amqp.Connection, error) { return nil, nil }
	for name, o := range map[string]outbox.Options{
		"neither Conn nor Dial": {},
		"both":                  {Conn: w.Conn, Dial: dial},
		"source":                {Dial: dial, Source: 7},
		"partitions":            {Dial: dial, Partitions: 65},
		"batch":                 {Dial: dial, Batch: -1},
		"timeout":               {Dial: dial, Timeout: -1},
	} {
		if _, err := outbox.NewRelay(w.DB, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := outbox.NewRelay(nil, outbox.Options{Dial: dial}); err == nil {
		t.Error("no pool: no error")
	}
}

func sequence(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
