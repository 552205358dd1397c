package outbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/outbox"
	"crashcourse/pkg/servertest"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// world is a service with an outbox, and a consumer of its events.
type world struct {
	*servertest.Servers
	t  *testing.T
	ch *amqp.Channel // for declaring things

	mu       sync.Mutex
	arrived  []amqp.Delivery
	arrival  chan struct{} // a token for what has arrived since somebody looked
	enqueued []uuid.UUID
}

// newWorld makes a world whose queue gets all events.
func newWorld(t *testing.T) *world {
	w := newUnboundWorld(t)
	w.bind("#")
	return w
}

func newUnboundWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Servers: servertest.New(t), t: t, arrival: make(chan struct{}, 1)}
	w.must(outbox.Migrate(t.Context(), w.DB))
	consumer, err := broker.Dial(t.Context(), w.AMQPURL)
	w.must(err)
	t.Cleanup(func() { _ = consumer.Close() })
	w.ch, err = consumer.Channel()
	w.must(err)
	w.must(w.ch.ExchangeDeclare("events", "topic", true, false, false, false, nil))
	_, err = w.ch.QueueDeclare("consumer", true, false, false, false, nil)
	w.must(err)
	deliveries, err := w.ch.Consume("consumer", "", true, false, false, false, nil)
	w.must(err)
	go func() {
		for d := range deliveries {
			w.mu.Lock()
			w.arrived = append(w.arrived, d)
			w.mu.Unlock()
			select {
			case w.arrival <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) bind(key string) {
	w.t.Helper()
	w.must(w.ch.QueueBind("consumer", key, "events", false, nil))
}

// enqueue commits n events of an aggregate, one transaction for all.
func (w *world) enqueue(aggregate, kind string, n int) {
	w.t.Helper()
	w.must(w.tryEnqueue(aggregate, kind, n))
}

// tryEnqueue may be called from any goroutine.
func (w *world) tryEnqueue(aggregate, kind string, n int) error {
	events := make([]outbox.Event, n)
	for i := range events {
		events[i] = outbox.Event{AggregateID: aggregate, Type: kind, Payload: map[string]any{"order_id": aggregate, "n": i}}
	}
	return pgx.BeginFunc(w.t.Context(), w.DB, func(tx pgx.Tx) error {
		ids, err := outbox.Enqueue(w.t.Context(), tx, events...)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.enqueued = append(w.enqueued, ids...)
		return err
	})
}

// run runs a relay with these options until stop is called, which returns what
// Run returned. At the test's end it is stopped in any case, and must not have
// failed.
func (w *world) run(o outbox.Options) (r *outbox.Relay, stop func() error) {
	w.t.Helper()
	if o.Conn == nil && o.Dial == nil {
		o.Dial = func(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, w.AMQPURL) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	r, err := outbox.NewRelay(w.DB, o)
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return fmt.Errorf("the relay did not stop within %v", patience)
		}
	})
	w.t.Cleanup(func() {
		if err := stop(); err != nil {
			w.t.Errorf("relay: %v", err)
		}
	})
	return r, stop
}

// awaitSession waits until CDC streams from its slot.
func (w *world) awaitSession(source outbox.Source) {
	w.t.Helper()
	if source != outbox.CDC {
		return
	}
	w.await("CDC streams", func() (ok bool) {
		w.must(w.AdminDB.QueryRow(w.t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_replication r JOIN pg_stat_activity a USING (pid) WHERE a.datname = $1 AND r.state = 'streaming')", w.Name).Scan(&ok))
		return ok
	})
}

// await waits until ok, which is asked whenever something has arrived and
// every 20 ms, is true.
func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-w.arrival:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			w.t.Fatalf("%s: not within %v; %d of %d events have arrived", what, patience, len(w.firsts()), len(w.enqueued))
		}
	}
}

// deliveries returns what has arrived so far.
func (w *world) deliveries() []amqp.Delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]amqp.Delivery(nil), w.arrived...)
}

// firsts returns what has arrived so far without the duplicates.
func (w *world) firsts() []amqp.Delivery {
	seen := map[string]bool{}
	var firsts []amqp.Delivery
	for _, d := range w.deliveries() {
		if !seen[d.MessageId] {
			seen[d.MessageId] = true
			firsts = append(firsts, d)
		}
	}
	return firsts
}

// awaitAll waits until everything that was enqueued has arrived and is marked,
// checks that each aggregate's events first arrived in order, and returns how
// many arrived twice.
func (w *world) awaitAll() (duplicates int) {
	w.t.Helper()
	w.await("all events arrive", func() bool {
		w.mu.Lock()
		n := len(w.enqueued)
		w.mu.Unlock()
		return len(w.firsts()) >= n
	})
	w.await("all rows are marked", func() bool { return w.count("published_at IS NULL") == 0 })
	w.checkOrder()
	return len(w.deliveries()) - len(w.firsts())
}

// checkOrder checks that the first arrivals of each aggregate are in the order
// of seq.
func (w *world) checkOrder() {
	w.t.Helper()
	rows, err := w.DB.Query(w.t.Context(), "SELECT message_id::text, seq FROM outbox")
	w.must(err)
	seqs := map[string]int64{}
	for rows.Next() {
		var id string
		var seq int64
		w.must(rows.Scan(&id, &seq))
		seqs[id] = seq
	}
	w.must(rows.Err())
	last := map[any]int64{}
	for _, d := range w.firsts() {
		aggregate, seq := d.Headers[outbox.AggregateHeader], seqs[d.MessageId]
		if seq < last[aggregate] {
			w.t.Errorf("of %v event %d arrived after event %d", aggregate, seq, last[aggregate])
		}
		last[aggregate] = seq
	}
}

func (w *world) count(where string) (n int) {
	w.t.Helper()
	w.must(w.DB.QueryRow(w.t.Context(), "SELECT count(*) FROM outbox WHERE "+where).Scan(&n))
	return n
}

// numbers returns the n of the payloads of an aggregate's first arrivals.
func (w *world) numbers(aggregate string) (ns []int) {
	for _, d := range w.firsts() {
		if d.Headers[outbox.AggregateHeader] == aggregate {
			var p struct{ N int }
			w.must(json.Unmarshal(d.Body, &p))
			ns = append(ns, p.N)
		}
	}
	return ns
}

// everySource runs a test for each of them.
func everySource(t *testing.T, f func(*testing.T, outbox.Source)) {
	for _, s := range []outbox.Source{outbox.Polling, outbox.Notify, outbox.CDC} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			f(t, s)
		})
	}
}
