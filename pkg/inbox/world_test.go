package inbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/inbox"
	"crashcourse/pkg/servertest"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// world is a queue with a dead letter queue, and a database in which each message
// has an effect: a row in the table effects. Nothing there is unique, so that an
// effect that happens twice can be seen.
type world struct {
	*servertest.Servers
	t  *testing.T
	ch *amqp.Channel // for declaring and publishing

	mu    sync.Mutex
	ended error // what a consumer said that ended before it was told to
}

// newWorld makes a world whose queue "work" has these arguments too.
func newWorld(t *testing.T, queue amqp.Table) *world {
	t.Helper()
	t.Parallel()
	w := &world{Servers: servertest.New(t), t: t}
	w.must(inbox.Migrate(t.Context(), w.DB))
	w.exec("CREATE TABLE effects (n bigint GENERATED ALWAYS AS IDENTITY, id text NOT NULL, body text NOT NULL)")
	var err error
	w.ch, err = w.Conn.Channel()
	w.must(err)
	w.must(w.ch.Confirm(false))
	_, err = w.ch.QueueDeclare("dead", true, false, false, false, nil)
	w.must(err)
	args := amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
	for name, v := range queue {
		args[name] = v
	}
	_, err = w.ch.QueueDeclare("work", true, false, false, false, args)
	w.must(err)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	_, err := w.DB.Exec(w.t.Context(), sql, args...)
	w.must(err)
}

// publish publishes messages with these IDs, and bodies that are the same.
func (w *world) publish(ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		w.send(amqp.Publishing{MessageId: id, Body: []byte(id)})
	}
}

func (w *world) send(p amqp.Publishing) {
	w.t.Helper()
	p.DeliveryMode = amqp.Persistent
	confirm, err := w.ch.PublishWithDeferredConfirm("", "work", true, false, p)
	w.must(err)
	if !confirm.Wait() {
		w.t.Fatal("the broker refused a message")
	}
}

// numbered returns n IDs: prefix and a number.
func numbered(prefix string, n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s%03d", prefix, i))
	}
	return ids
}

// effect is the handler of most tests.
func effect(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
	_, err := tx.Exec(ctx, "INSERT INTO effects (id, body) VALUES ($1, $2)", d.ID, string(d.Body))
	return err
}

// options fills in what a test leaves out.
func (w *world) options(o inbox.Options) inbox.Options {
	if o.Consumer == "" {
		o.Consumer = "test"
	}
	if o.Queue == "" {
		o.Queue = "work"
	}
	if o.Handle == nil && o.HandleBatch == nil {
		o.Handle = effect
	}
	if o.Conn == nil && o.Dial == nil {
		o.Dial = func(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, w.AMQPURL) }
	}
	if o.MinRetry == 0 {
		o.MinRetry, o.MaxRetry = 5*time.Millisecond, 100*time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return o
}

func (w *world) make(o inbox.Options) *inbox.Consumer {
	w.t.Helper()
	c, err := inbox.New(w.DB, w.options(o))
	w.must(err)
	return c
}

// run runs a consumer with these options until stop is called, which returns what
// Run returned. At the test's end it is stopped in any case, and must not have
// failed.
func (w *world) run(o inbox.Options) (c *inbox.Consumer, stop func() error) {
	w.t.Helper()
	c = w.make(o)
	return c, w.start(c)
}

func (w *world) start(c *inbox.Consumer) (stop func() error) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := c.Run(ctx)
		if ctx.Err() == nil {
			w.mu.Lock()
			w.ended = fmt.Errorf("a consumer has ended: %w", err)
			w.mu.Unlock()
		}
		ended <- err
	}()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return fmt.Errorf("the consumer did not stop within %v", patience)
		}
	})
	w.t.Cleanup(func() {
		if err := stop(); err != nil {
			w.t.Errorf("consumer: %v", err)
		}
	})
	return stop
}

func (w *world) stats(c *inbox.Consumer) inbox.Stats {
	w.t.Helper()
	s, err := c.Stats(w.t.Context())
	w.must(err)
	return s
}

// await waits until ok, which is asked again and again, is true.
func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		w.mu.Lock()
		ended := w.ended
		w.mu.Unlock()
		w.must(ended)
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %v; effects: %v", what, patience, w.effects())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// effects returns the IDs of the messages that have had an effect, in its order.
func (w *world) effects() []string {
	w.t.Helper()
	rows, err := w.DB.Query(context.Background(), "SELECT id FROM effects ORDER BY n")
	w.must(err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	w.must(err)
	return ids
}

// awaitEffects waits until there are effects of all these messages, and checks that
// there is one of each and no other.
func (w *world) awaitEffects(ids ...string) {
	w.t.Helper()
	w.await("all have had their effect", func() bool { return len(w.effects()) >= len(ids) })
	got := w.effects()
	slices.Sort(got)
	want := slices.Sorted(slices.Values(ids))
	if !slices.Equal(got, want) {
		w.t.Errorf("effects of %v, want %v", got, want)
	}
}

// depth is how many messages a queue has ready for delivery.
func (w *world) depth(queue string) int {
	w.t.Helper()
	q, err := w.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	w.must(err)
	return q.Messages
}

// awaitNothingLeft waits until the consumer has settled all it holds, and stops it.
// The queue must then be empty: what is not settled would be back in it.
func (w *world) awaitNothingLeft(c *inbox.Consumer, stop func() error) {
	w.t.Helper()
	w.await("all is settled", func() bool { return w.depth("work") == 0 && w.stats(c).InFlight == 0 })
	w.must(stop())
	if n := w.depth("work"); n != 0 {
		w.t.Errorf("%d messages are in the queue", n)
	}
}

// tally counts what a consumer tells of.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (l *tally) add(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == nil {
		l.n = map[string]int{}
	}
	l.n[what]++
}

func (l *tally) of(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n[what]
}
