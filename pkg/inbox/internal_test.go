package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/postgres"
	"crashcourse/pkg/servertest"
)

func TestTags(t *testing.T) {
	tags := tags{low: 1, settled: map[uint64]bool{}}
	ack := func(handled []uint64, upTo uint64, others ...uint64) {
		t.Helper()
		if u, o := tags.ack(handled); u != upTo || !slices.Equal(o, others) {
			t.Errorf("ack of %v: up to %d and %v, want %d and %v", handled, u, o, upTo, others)
		}
	}
	ack([]uint64{2, 3}, 0, 2, 3)          // 1 is in hand
	ack([]uint64{5}, 0, 5)                // and so is 4
	ack([]uint64{1}, 0, 1)                // one alone, though 2 and 3 are settled too
	ack([]uint64{4, 6, 7, 9}, 7, 9)       // 5 is settled already, 8 in hand
	tags.rejected(8)                      // settled otherwise
	ack([]uint64{12, 11, 10, 14}, 12, 14) // whatever their order
	ack(nil, 0)
	ack([]uint64{13}, 0, 13)
	if len(tags.settled) != 0 || tags.low != 15 {
		t.Errorf("left: %+v", tags)
	}
}

func TestLanes(t *testing.T) {
	l := lanes{named: map[string]*lane{}}
	add := func(id, key string) *item {
		it := &item{Delivery: Delivery{ID: id}}
		l.add(it, key)
		return it
	}
	take := func(n, each int, want ...string) []*item {
		t.Helper()
		items := l.take(n, each)
		var got []string
		for _, it := range items {
			got = append(got, it.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("took %v, want %v", got, want)
		}
		return items
	}
	add("a1", "a")
	add("b1", "b")
	add("a2", "a")
	add("x", "")
	add("x", "") // its twin
	first := take(3, 10, "a1", "a2", "b1")
	add("a3", "a")
	take(10, 1, "x")
	take(10, 10)
	l.back(first[0].lane, first[1:2])
	take(10, 10) // it waits for another try
	l.free(first[0].lane)
	take(10, 10, "a2", "a3")
	l.free(first[2].lane)
	if l.named["key b"] != nil {
		t.Error("an empty lane stays")
	}
	bad := &item{invalid: errors.New("no"), Delivery: Delivery{}}
	l.add(bad, "")
	l.add(&item{invalid: errors.New("no")}, "")
	take(10, 10, "", "")
	l.free(bad.lane)
}

func TestCauses(t *testing.T) {
	pg := func(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		name         string
		err          error
		closed, late bool
		want         cause
	}{
		{"anything", errors.New("x"), false, false, fault},
		{"division by zero", pg("22012"), false, false, fault},
		{"no such table, in the handler", pg("42P01"), false, false, fault},
		{"no such table, ours", &ourError{pg("42P01")}, false, false, broken},
		{"serialization", pg("40001"), false, false, conflict},
		{"deadlock", pg("40P01"), false, false, conflict},
		{"lock timeout", pg("55P03"), false, false, conflict},
		{"terminated", pg("57P01"), true, false, lost},
		{"statement timeout", pg("57014"), false, false, fault},
		{"statement timeout, ours", &ourError{pg("57014")}, false, false, lost},
		{"standby", pg("25006"), false, false, lost},
		{"disk full", pg("53100"), false, false, lost},
		{"connection lost", errors.New("unexpected EOF"), true, false, lost},
		{"too slow", errors.New("timeout"), true, true, fault},
		{"a deadline of the handler's", context.DeadlineExceeded, true, false, fault},
		{"ours too slow", ours("begin: %w", context.DeadlineExceeded), true, true, lost},
	} {
		if got := causeOf(c.err, c.closed, c.late); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestGuard(t *testing.T) {
	if err := guard(func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := guard(func() error { panic("oh") }); err == nil {
		t.Error("a panic: no error")
	}
	if err := guard(func() error { runtime.Goexit(); return nil }); !errors.Is(err, errHandler) {
		t.Errorf("runtime.Goexit: %v", err)
	}
}

func TestProperties(t *testing.T) {
	want := amqp.Delivery{
		ContentType: "text/plain", DeliveryMode: 2, Priority: 9, MessageId: "not \xff text", Timestamp: time.Unix(1_700_000_000, 0).UTC(), ReplyTo: "q",
		Headers: amqp.Table{
			"nil": nil, "bool": true, "int8": int8(-1), "uint8": uint8(1), "int16": int16(1), "int32": int32(1), "int64": int64(math.MaxInt64), "int": 1,
			"uint16": uint16(1), "uint32": uint32(1), "float32": float32(1.5), "float64": 1e300, "inf": math.Inf(1), "string": "s\x00", "bytes": []byte{0, 255},
			"time": time.Unix(1, 0).UTC(), "decimal": amqp.Decimal{Scale: 2, Value: 314}, "table": amqp.Table{"a": []any{int32(1), "b"}}, "x": "{", "odd": "\xff",
		},
	}
	text, err := json.Marshal(propertiesOf(want))
	if err != nil {
		t.Fatal(err)
	}
	var p properties
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	var got amqp.Delivery
	p.restore(&got)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v\nby way of %s", got, want, text)
	}
}

// generationWorld is a consumer that does not run, with a retention of an hour.
type generationWorld struct {
	*Consumer
	*servertest.Servers
	t *testing.T
}

func newGenerationWorld(t *testing.T) *generationWorld {
	t.Parallel()
	s := servertest.New(t)
	c, err := New(s.DB, Options{Consumer: "c", Queue: "q", Conn: s.Conn, Retention: time.Hour, Logger: slog.New(slog.DiscardHandler),
		Handle: func(context.Context, pgx.Tx, Delivery) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	w := &generationWorld{c, s, t}
	w.must(c.prepareOnce(t.Context()))
	return w
}

func (w *generationWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *generationWorld) exec(sql string) {
	w.t.Helper()
	_, err := w.DB.Exec(w.t.Context(), sql)
	w.must(err)
}

// age makes the current generation so old.
func (w *generationWorld) age(interval string) {
	w.t.Helper()
	w.exec("UPDATE inbox_generation SET started_at = clock_timestamp() - interval '" + interval + "'")
}

func (w *generationWorld) once(id string) (first bool) {
	w.t.Helper()
	w.must(pgx.BeginFunc(w.t.Context(), w.DB, func(tx pgx.Tx) (err error) {
		first, err = Once(w.t.Context(), tx, "c", id)
		return err
	}))
	return first
}

func (w *generationWorld) begin(level pgx.TxIsoLevel) pgx.Tx {
	w.t.Helper()
	tx, err := w.DB.BeginTx(w.t.Context(), pgx.TxOptions{IsoLevel: level})
	w.must(err)
	w.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// A message is known in every generation, and forgotten with the last.
func TestGenerations(t *testing.T) {
	w := newGenerationWorld(t)
	if !w.once("a") || w.once("a") {
		t.Error("a is not first once")
	}
	if done, err := w.rotateOnce(t.Context(), time.Second); done || err != nil {
		t.Errorf("a young generation ends: %v", err)
	}
	for i := range generations {
		if w.once("a") {
			t.Errorf("after %d generations a is forgotten", i)
		}
		w.age("21 minutes")
		done, err := w.rotateOnce(t.Context(), time.Second)
		if !done || err != nil {
			t.Fatalf("no new generation: %v", err)
		}
	}
	if !w.once("a") {
		t.Error("a is remembered for ever")
	}
}

// The longest retention counts, and for ever is the longest.
func TestLongestRetention(t *testing.T) {
	w := newGenerationWorld(t)
	w.exec("INSERT INTO inbox_consumers VALUES ('other', '2 hours')")
	w.age("21 minutes")
	if done, err := w.rotateOnce(t.Context(), time.Second); done || err != nil {
		t.Errorf("a new generation too early, %v", err)
	}
	w.age("41 minutes")
	if done, err := w.rotateOnce(t.Context(), time.Second); !done || err != nil {
		t.Errorf("no new generation, %v", err)
	}
	w.exec("UPDATE inbox_consumers SET retention = NULL WHERE consumer = 'other'")
	w.age("1 year")
	if done, err := w.rotateOnce(t.Context(), time.Second); done || err != nil {
		t.Errorf("a new generation, although all is to be kept, %v", err)
	}
}

// Twins meet while a generation ends: the one in the old, the other in the new.
func TestTwinsAroundANewGeneration(t *testing.T) {
	for _, commits := range []bool{true, false} {
		t.Run(fmt.Sprint("commits=", commits), func(t *testing.T) {
			w := newGenerationWorld(t)
			ctx := t.Context()
			old := w.begin(pgx.ReadCommitted)
			if first, err := Once(ctx, old, "c", "a"); !first || err != nil {
				t.Fatal(first, err)
			}
			w.age("21 minutes")
			if _, err := w.rotateOnce(ctx, 10*time.Millisecond); postgres.SQLState(err) != "55P03" {
				t.Fatalf("it did not wait for the transaction at work: %v", err)
			}
			rotated, asked := make(chan error, 1), make(chan error, 1)
			go func() {
				done, err := w.rotateOnce(ctx, time.Minute)
				if err == nil && !done {
					err = errors.New("no new generation")
				}
				rotated <- err
			}()
			w.awaitWaiting(1)
			var first bool
			go func() {
				asked <- pgx.BeginFunc(ctx, w.DB, func(tx pgx.Tx) (err error) {
					first, err = Once(ctx, tx, "c", "a")
					return err
				})
			}()
			w.awaitWaiting(2)
			if commits {
				w.must(old.Commit(ctx))
			} else {
				w.must(old.Rollback(ctx))
			}
			w.must(<-rotated)
			w.must(<-asked)
			if first == commits {
				t.Errorf("the twin is first: %v", first)
			}
			var generation int
			w.must(w.DB.QueryRow(ctx, "SELECT current FROM inbox_generation").Scan(&generation))
			if generation != 1 {
				t.Errorf("generation %d", generation)
			}
		})
	}
}

// awaitWaiting waits until n sessions wait for a lock.
func (w *generationWorld) awaitWaiting(n int) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		var waiting int
		w.must(w.AdminDB.QueryRow(w.t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'", w.Name).Scan(&waiting))
		if waiting >= n {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d sessions wait, not %d", waiting, n)
		}
	}
}

// A snapshot that was taken before a generation began does not see what its twin
// committed into the last one. The transaction fails, and may be tried again.
func TestOldSnapshots(t *testing.T) {
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		t.Run(string(level), func(t *testing.T) {
			w := newGenerationWorld(t)
			old := w.begin(level)
			if _, err := old.Exec(t.Context(), "SELECT count(*) FROM inbox_messages"); err != nil {
				t.Fatal(err)
			}
			w.once("a")
			twin := w.begin(level)
			if _, err := twin.Exec(t.Context(), "SELECT 1"); err != nil {
				t.Fatal(err)
			}
			w.must(old.Rollback(t.Context()))
			old = w.begin(level)
			if _, err := old.Exec(t.Context(), "SELECT count(*) FROM inbox_consumers"); err != nil {
				t.Fatal(err)
			}
			w.once("b") // into the same generation
			if _, err := Once(t.Context(), old, "c", "b"); postgres.SQLState(err) != "40001" {
				t.Errorf("in one generation: %v", err)
			}
			w.once("d")
			w.age("21 minutes")
			if done, err := w.rotateOnce(t.Context(), time.Second); !done || err != nil {
				t.Fatal(done, err)
			}
			if _, err := Once(t.Context(), twin, "c", "d"); postgres.SQLState(err) != "40001" {
				t.Errorf("in the next generation: %v", err)
			}
			fresh := w.begin(level)
			if first, err := Once(t.Context(), fresh, "c", "d"); first || err != nil {
				t.Errorf("a new snapshot: %v, %v", first, err)
			}
			if first, err := Once(t.Context(), fresh, "c", "e"); !first || err != nil {
				t.Errorf("a new message: %v, %v", first, err)
			}
		})
	}
}

func TestOnceChecks(t *testing.T) {
	w := newGenerationWorld(t)
	tx := w.begin(pgx.ReadCommitted)
	for _, id := range []string{"", "a\x00", "\xff", string(make([]byte, 256))} {
		if _, err := Once(t.Context(), tx, "c", id); !errors.Is(err, ErrInvalidID) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := Once(t.Context(), tx, "", "a"); !errors.Is(err, ErrInvalidID) {
		t.Errorf("no consumer: %v", err)
	}
	if first, err := Once(t.Context(), tx, "c", "a"); !first || err != nil {
		t.Errorf("the transaction cannot go on: %v, %v", first, err)
	}
	if first, err := Once(t.Context(), tx, "other", "a"); !first || err != nil {
		t.Errorf("another consumer: %v, %v", first, err)
	}
}
