package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/inbox"
)

// batches runs a test for single messages and for batches.
func batches(t *testing.T, f func(*testing.T, int)) {
	for _, n := range []int{1, 10} {
		t.Run(fmt.Sprint("batch", n), func(t *testing.T) { f(t, n) })
	}
}

func TestHandlesOnce(t *testing.T) {
	batches(t, func(t *testing.T, batch int) {
		w := newWorld(t, nil)
		ids := numbered("m", 50)
		w.publish(ids...)
		w.publish(ids...) // each twice
		c, stop := w.run(inbox.Options{Batch: batch, Concurrency: 3})
		w.awaitEffects(ids...)
		w.awaitNothingLeft(c, stop)
		if s := w.stats(c); s.Handled != 50 || s.Duplicates != 50 || s.Parked != 0 || s.Retried != 0 || s.Lag != 0 || s.Dialled != 1 {
			t.Errorf("stats: %+v", s)
		}
		w.awaitEffects(ids...)
	})
}

// Two consumers with one name share the work; one of another name does it for
// itself.
func TestConsumersByName(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.ch.QueueDeclare("also", true, false, false, false, nil)
	w.must(err)
	ids := numbered("m", 30)
	w.publish(ids...)
	for _, id := range ids {
		w.must(w.ch.Publish("", "also", false, false, amqp.Publishing{MessageId: id}))
	}
	w.run(inbox.Options{})
	w.run(inbox.Options{Conn: w.Conn, Batch: 5})
	w.run(inbox.Options{Consumer: "other", Queue: "also"})
	w.awaitEffects(append(ids, ids...)...)
}

// Twins are in the hands of two consumers at the same time. The second waits for
// the first, and does what it must: nothing if the first commits, all if it fails.
func TestTwinsInParallel(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("fails=", fails), func(t *testing.T) {
			w := newWorld(t, amqp.Table{"x-max-length": 1000})
			began, goOn := make(chan string, 2), make(chan struct{})
			var once sync.Once
			handle := func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
				w.must(effect(ctx, tx, d))
				first := false
				once.Do(func() { first = true })
				if !first {
					return nil
				}
				began <- d.ID
				<-goOn
				if fails {
					return inbox.Permanent(errors.New("no"))
				}
				return nil
			}
			w.publish("a", "a")
			// Each holds one message, so that each gets one of the twins.
			a, _ := w.run(inbox.Options{Handle: handle, Concurrency: 1, Prefetch: 1})
			b, _ := w.run(inbox.Options{Handle: handle, Concurrency: 1, Prefetch: 1})
			<-began
			w.await("the second waits for the first", func() (waits bool) {
				w.must(w.AdminDB.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock')", w.Name).Scan(&waits))
				return waits
			})
			close(goOn)
			w.awaitEffects("a")
			w.await("both are settled", func() bool {
				x, y := w.stats(a), w.stats(b)
				return x.InFlight+y.InFlight == 0 && x.Handled+y.Handled == 1 && x.Duplicates+y.Duplicates+x.Parked+y.Parked == 1
			})
			w.awaitEffects("a")
		})
	}
}

// One message of a batch fails. The others have their effect, once.
func TestPoisonInTheMiddleOfABatch(t *testing.T) {
	w := newWorld(t, nil)
	ids := numbered("m", 20)
	w.publish(ids...)
	bad := map[string]bool{"m007": true, "m008": true, "m019": true}
	var calls tally
	c, stop := w.run(inbox.Options{Batch: 20, Concurrency: 1, Attempts: 3, Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
		calls.add(d.ID)
		w.must(effect(ctx, tx, d))
		switch d.ID {
		case "m007":
			return errors.New("broken")
		case "m008": // by a statement, after which the transaction is of no use
			_, err := tx.Exec(ctx, "SELECT 1/0")
			return err
		case "m019":
			_, _ = tx.Exec(ctx, "SELECT 1/0")
		}
		return nil
	}})
	good := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return bad[id] })
	w.awaitEffects(good...)
	w.await("three are parked", func() bool { return w.stats(c).Waiting == 3 })
	w.awaitNothingLeft(c, stop)
	if s := w.stats(c); s.Handled != 17 || s.Parked != 3 || s.Retried != 6 || s.Duplicates != 0 {
		t.Errorf("stats: %+v", s)
	}
	if n := calls.of("m000"); n > 3 {
		t.Errorf("the first message was tried %d times", n)
	}
}

// effects is effect for several messages, by one statement. It fails if one of
// them says that it is bad.
func effects(ctx context.Context, tx pgx.Tx, batch []inbox.Delivery) error {
	var ids, bodies []string
	for _, d := range batch {
		ids, bodies = append(ids, d.ID), append(bodies, string(d.Body))
	}
	_, err := tx.Exec(ctx, `INSERT INTO effects (id, body)
		SELECT id, body FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u (id, body, n)
		WHERE body <> 'bad' OR 1 / (length(body) - 3) = 0 ORDER BY n`, ids, bodies)
	return err
}

// A handler of batches gets what is new, each once, in order. What it fails at is
// found by halving.
func TestHandleBatch(t *testing.T) {
	w := newWorld(t, nil)
	w.publish("m000", "m001")
	c, stop := w.run(inbox.Options{HandleBatch: effects, Batch: 20})
	w.awaitEffects("m000", "m001")
	w.awaitNothingLeft(c, stop)

	ids := numbered("m", 20)
	w.publish(ids[:10]...)
	w.publish("m009") // a twin in the same batch
	w.send(amqp.Publishing{MessageId: "bad", Body: []byte("bad")})
	w.publish(ids[10:]...)
	var mu sync.Mutex
	smallest := 100
	c, stop = w.run(inbox.Options{Batch: 50, Concurrency: 1, Attempts: 2, HandleBatch: func(ctx context.Context, tx pgx.Tx, batch []inbox.Delivery) error {
		seen := map[string]bool{}
		for _, d := range batch {
			if seen[d.ID] || d.ID < "m002" && d.ID != "bad" {
				t.Errorf("%s is not new", d.ID)
			}
			seen[d.ID] = true
		}
		mu.Lock()
		smallest = min(smallest, len(batch))
		mu.Unlock()
		return effects(ctx, tx, batch)
	}})
	w.awaitEffects(ids...)
	w.await("one is parked", func() bool { return w.stats(c).Waiting == 1 })
	w.awaitNothingLeft(c, stop)
	if s := w.stats(c); s.Handled != 18 || s.Parked != 1 || s.Retried != 1 || s.Duplicates != 3 {
		t.Errorf("stats: %+v", s)
	}
	if smallest != 1 {
		t.Errorf("the smallest batch had %d messages, want the bad one alone", smallest)
	}
}

// Messages of one key are handled in the order of arrival, whatever fails between.
func TestOrderByKey(t *testing.T) {
	batches(t, func(t *testing.T, batch int) {
		w := newWorld(t, nil)
		var ids []string
		for i := range 30 {
			for _, key := range []string{"a", "b", "c", "d"} {
				ids = append(ids, fmt.Sprintf("%s%02d", key, i))
			}
		}
		w.publish(ids...)
		var failed tally
		c, stop := w.run(inbox.Options{
			Batch: batch, Concurrency: 4,
			Key: func(d inbox.Delivery) string { return d.ID[:1] },
			Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
				if strings.HasSuffix(d.ID, "7") && failed.of(d.ID) < 3 {
					failed.add(d.ID)
					return errors.New("not yet")
				}
				return effect(ctx, tx, d)
			},
		})
		w.awaitEffects(ids...)
		w.awaitNothingLeft(c, stop)
		w.checkOrder()
	})
}

// A message that waits for another try holds up its key, and no other.
func TestOtherKeysDoNotWait(t *testing.T) {
	w := newWorld(t, nil)
	w.publish("a0", "a1", "b0", "b1", "c0")
	var mend sync.Map
	c, stop := w.run(inbox.Options{
		Attempts: 1_000_000, Concurrency: 1,
		Key: func(d inbox.Delivery) string { return d.ID[:1] },
		Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
			if _, ok := mend.Load("mended"); !ok && d.ID == "a0" {
				return errors.New("not yet")
			}
			return effect(ctx, tx, d)
		},
	})
	w.awaitEffects("b0", "b1", "c0")
	mend.Store("mended", true)
	w.awaitEffects("b0", "b1", "c0", "a0", "a1")
	if got := w.effects()[3:]; !slices.Equal(got, []string{"a0", "a1"}) {
		t.Errorf("in the order %v", got)
	}
	w.awaitNothingLeft(c, stop)
}

// Without a usable ID a message is parked, whole.
func TestNoID(t *testing.T) {
	w := newWorld(t, nil)
	headers := amqp.Table{"n": int32(7), "at": time.Unix(1_700_000_000, 0), "in": amqp.Table{"x": []any{int64(1), "two", nil, 1.5}}, "raw": []byte{0, 1}}
	w.send(amqp.Publishing{Body: []byte("first"), Headers: headers, Type: "t", Priority: 3})
	w.send(amqp.Publishing{MessageId: "with\x00nul", Body: []byte("second")})
	w.publish("good")
	c, stop := w.run(inbox.Options{Batch: 5, Concurrency: 1}) // parked in this order
	w.awaitEffects("good")
	w.await("two are parked", func() bool { return w.stats(c).Waiting == 2 })
	w.awaitNothingLeft(c, stop)
	if n := w.depth("dead"); n != 0 {
		t.Errorf("%d dead letters", n)
	}
	// Another program knows how to name them.
	var got []inbox.Delivery
	c = w.make(inbox.Options{
		ID: func(d amqp.Delivery) (string, error) { return "named " + string(d.Body), nil },
		Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
			got = append(got, d)
			return effect(ctx, tx, d)
		},
	})
	if n, err := c.Replay(t.Context()); n != 2 || err != nil {
		t.Fatalf("replayed %d, %v", n, err)
	}
	w.awaitEffects("good", "named first", "named second")
	if d := got[0]; string(d.Body) != "first" || d.Type != "t" || d.Priority != 3 || fmt.Sprint(d.Headers) != fmt.Sprint(headers) || d.Headers["n"] != int32(7) {
		t.Errorf("replayed as %+v, headers %v", d, d.Headers)
	}
	if s := w.stats(c); s.Waiting != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestDeadLetters(t *testing.T) {
	w := newWorld(t, nil)
	w.publish("a", "bad", "b", "c")
	w.send(amqp.Publishing{Body: []byte("no id")})
	c, stop := w.run(inbox.Options{DeadLetter: true, Batch: 10, Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
		if d.ID == "bad" {
			return inbox.Permanent(errors.New("never"))
		}
		return effect(ctx, tx, d)
	}})
	w.awaitEffects("a", "b", "c")
	w.await("two dead letters", func() bool { return w.depth("dead") == 2 })
	w.awaitNothingLeft(c, stop)
	if s := w.stats(c); s.Parked != 2 || s.Waiting != 0 || s.Retried != 0 {
		t.Errorf("stats: %+v", s)
	}
}

// What a handler does wrong is its message's failure, and nobody else's.
func TestBadHandlers(t *testing.T) {
	batches(t, func(t *testing.T, batch int) {
		w := newWorld(t, nil)
		bad := map[string]func(context.Context, pgx.Tx) error{
			"panic":    func(context.Context, pgx.Tx) error { panic("oh") },
			"nil":      func(context.Context, pgx.Tx) error { var p *int; *p = 1; return nil },
			"commit":   func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) },
			"rollback": func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) },
			"rows":     func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Query(ctx, "SELECT 1"); return err },
			"swallow":  func(ctx context.Context, tx pgx.Tx) error { _, _ = tx.Exec(ctx, "SELECT 1/0"); return nil },
			"slow":     func(ctx context.Context, tx pgx.Tx) error { <-ctx.Done(); return ctx.Err() },
			"slow sql": func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, "SELECT pg_sleep(60)"); return err },
			"deferred": func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO child VALUES (1)")
				return err
			},
			"goexit": func(context.Context, pgx.Tx) error { runtime.Goexit(); return nil },
		}
		w.exec("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
		good := numbered("m", 20)
		w.publish(good[:10]...)
		for id := range bad {
			w.publish(id)
		}
		w.publish(good[10:]...)
		c, stop := w.run(inbox.Options{Batch: batch, Attempts: 2, Timeout: time.Second, Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
			if err := effect(ctx, tx, d); err != nil {
				return err
			}
			if d.Ack(false) == nil {
				t.Error("a handler has acked")
			}
			if f := bad[d.ID]; f != nil {
				return f(ctx, tx)
			}
			return nil
		}})
		w.awaitEffects(good...)
		w.await("the bad ones are parked", func() bool { return w.stats(c).Waiting == int64(len(bad)) })
		w.awaitNothingLeft(c, stop)
		w.awaitEffects(good...)
		if s := w.stats(c); s.Retried != uint64(len(bad)) || s.Handled != 20 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// Conflicts between transactions are nobody's fault.
func TestConflictsDoNotCount(t *testing.T) {
	batches(t, func(t *testing.T, batch int) {
		w := newWorld(t, nil)
		ids := numbered("m", 20)
		w.publish(ids...)
		var failed tally
		c, stop := w.run(inbox.Options{Batch: batch, Attempts: 1, Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
			if failed.of(d.ID) < 3 {
				failed.add(d.ID)
				_, err := tx.Exec(ctx, "DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$")
				return fmt.Errorf("wrapped: %w", err)
			}
			return effect(ctx, tx, d)
		}})
		w.awaitEffects(ids...)
		w.awaitNothingLeft(c, stop)
		if s := w.stats(c); s.Parked != 0 || s.Retried != 0 || s.Failed == 0 || s.LastError == nil || s.LastErrorAt.IsZero() {
			t.Errorf("stats: %+v", s)
		}
	})
}

// Before is called outside of the transaction, and not for duplicates.
func TestBefore(t *testing.T) {
	batches(t, func(t *testing.T, batch int) {
		w := newWorld(t, nil)
		ids := numbered("m", 10)
		w.publish(ids...)
		var calls, keys tally
		before := func(_ context.Context, d inbox.Delivery) (any, error) {
			calls.add(d.ID)
			keys.add(d.IdempotencyKey())
			switch {
			case d.ID == "m003" && calls.of(d.ID) == 1:
				return nil, errors.New("not yet")
			case d.ID == "m004":
				panic("never")
			}
			return "answer to " + d.ID, nil
		}
		c, stop := w.run(inbox.Options{Batch: batch, Attempts: 3, Before: before, Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
			d.Body = []byte(d.Before.(string))
			return effect(ctx, tx, d)
		}})
		good := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == "m004" })
		w.awaitEffects(good...)
		w.await("one is parked", func() bool { return w.stats(c).Waiting == 1 })
		w.publish(good...)
		w.awaitNothingLeft(c, stop)
		w.awaitEffects(good...)
		var body string
		w.must(w.DB.QueryRow(t.Context(), "SELECT body FROM effects WHERE id = 'm003'").Scan(&body))
		if body != "answer to m003" || calls.of("m000") != 1 || calls.of("m003") != 2 || calls.of("m004") != 3 || keys.of(inbox.IdempotencyKey("test", "m003")) != 2 {
			t.Errorf("body %q, calls %v", body, calls.n)
		}
	})
}

func TestReplay(t *testing.T) {
	w := newWorld(t, nil)
	w.publish("a", "b", "c")
	var mended tally
	handle := func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
		if mended.of(d.ID) == 0 {
			return inbox.Permanent(errors.New("not mended"))
		}
		return effect(ctx, tx, d)
	}
	c, _ := w.run(inbox.Options{Handle: handle})
	w.await("three are parked", func() bool { return w.stats(c).Waiting == 3 })
	mended.add("a")
	w.publish("a") // and it comes again by the queue
	w.awaitEffects("a")
	w.await("it is parked no more", func() bool { return w.stats(c).Waiting == 2 })
	mended.add("b")
	if n, err := c.Replay(t.Context()); n != 1 || err != nil {
		t.Errorf("replayed %d, %v", n, err)
	}
	mended.add("c")
	for want := range []int{1, 0} {
		if n, err := c.Replay(t.Context()); n != 1-want || err != nil {
			t.Errorf("replayed %d, %v", n, err)
		}
	}
	w.publish("b", "c")
	w.await("they are duplicates", func() bool { return w.stats(c).Duplicates == 2 })
	w.awaitEffects("a", "b", "c")
}

func TestLag(t *testing.T) {
	w := newWorld(t, nil)
	w.send(amqp.Publishing{MessageId: "old", Timestamp: time.Now().Add(-time.Hour)})
	held := make(chan struct{})
	c, stop := w.run(inbox.Options{Handle: func(context.Context, pgx.Tx, inbox.Delivery) error { <-held; return nil }})
	w.await("it is in hand", func() bool { return w.stats(c).InFlight == 1 })
	if s := w.stats(c); s.Lag < time.Hour || s.Lag > 2*time.Hour {
		t.Errorf("stats: %+v", s)
	}
	close(held)
	w.awaitNothingLeft(c, stop)
	if s := w.stats(c); s.Lag != 0 || s.InFlight != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	w := newWorld(t, nil)
	good := w.options(inbox.Options{})
	for want, change := range map[string]func(*inbox.Options){
		"Conn":        func(o *inbox.Options) { o.Conn = w.Conn },
		"Consumer":    func(o *inbox.Options) { o.Consumer = "" },
		"Queue":       func(o *inbox.Options) { o.Queue = "" },
		"Handle":      func(o *inbox.Options) { o.Handle = nil },
		"HandleBatch": func(o *inbox.Options) { o.HandleBatch = effects },
		"Batch":       func(o *inbox.Options) { o.Batch = -1 },
		"Concurrency": func(o *inbox.Options) { o.Concurrency = -1 },
		"Prefetch":    func(o *inbox.Options) { o.Batch, o.Prefetch = 100, 10 },
		"Attempts":    func(o *inbox.Options) { o.Attempts = -1 },
		"MinRetry":    func(o *inbox.Options) { o.MinRetry = -1 },
	} {
		o := good
		change(&o)
		if _, err := inbox.New(w.DB, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := inbox.New(nil, good); err == nil {
		t.Error("no pool, no error")
	}
}

// A connection whose channels the library recovers is refused.
func TestRecoveryIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	dial := func(ctx context.Context) (*amqp.Connection, error) {
		return broker.Dial(ctx, w.AMQPURL, func(c *amqp.Config) { c.Recovery = &amqp.Recovery{} })
	}
	if err := w.make(inbox.Options{Dial: dial}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "Recovery") {
		t.Errorf("got %v", err)
	}
	conn, err := dial(t.Context())
	w.must(err)
	defer conn.Close()
	if _, err := inbox.New(w.DB, w.options(inbox.Options{Conn: conn})); err == nil || !strings.Contains(err.Error(), "Recovery") {
		t.Errorf("got %v", err)
	}
}
