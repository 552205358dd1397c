package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/inbox"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/wire"
)

// Both servers break all connections again and again. Nothing is lost, nothing has
// its effect twice, nobody is blamed, and the order of each key is kept.
func TestConnectionsBreak(t *testing.T) {
	for _, kind := range []string{"classic", "quorum"} {
		batches(t, func(t *testing.T, batch int) {
			w := newWorld(t, amqp.Table{"x-queue-type": kind})
			var sockets sockets
			c, stop := w.run(inbox.Options{
				Batch: batch, Concurrency: 3, Attempts: 1, MinRetry: 5 * time.Millisecond, MaxRetry: 50 * time.Millisecond,
				Key:  func(d inbox.Delivery) string { return d.ID[:1] },
				Dial: sockets.dial(w.AMQPURL),
			})
			var ids []string
			for i := range 12 {
				var more []string
				for _, key := range []string{"a", "b", "c", "d"} {
					more = append(more, numbered(fmt.Sprintf("%s%03d", key, i), 5)...)
				}
				w.publish(more...)
				ids = append(ids, more...)
				w.await("it is in the middle of it", func() bool { return w.count() > len(ids)-15 })
				if i%2 == 0 {
					sockets.cut()
				} else {
					w.terminate()
				}
			}
			w.await("all have had their effect", func() bool { return w.count() >= len(ids) })
			w.awaitNothingLeft(c, stop)
			w.awaitEffects(ids...)
			w.checkOrder()
			s := w.stats(c)
			if s.Parked != 0 || s.Retried != 0 || s.Dialled < 4 {
				t.Errorf("stats: %+v", s)
			}
			t.Logf("%d duplicates, %d redelivered", s.Duplicates, s.Redelivered)
		})
	}
}

// The management API closes the connection.
func TestConnectionClosedByOperator(t *testing.T) {
	w := newWorld(t, nil)
	c, stop := w.run(inbox.Options{})
	w.publish("a")
	w.awaitEffects("a")
	publisher, err := broker.Dial(t.Context(), w.AMQPURL)
	w.must(err)
	w.await("the server lists the connection, and closes it", func() bool {
		_, err := w.Admin.CloseConnections(t.Context(), w.Name)
		w.must(err)
		return w.stats(c).Dialled >= 2
	})
	_ = publisher.Close()
	again, err := broker.Dial(t.Context(), w.AMQPURL)
	w.must(err)
	defer again.Close()
	w.ch, err = again.Channel()
	w.must(err)
	w.must(w.ch.Confirm(false))
	w.publish("b")
	w.awaitEffects("a", "b")
	w.awaitNothingLeft(c, stop)
}

// The connection breaks while a message is in work. Its ack is not sent over the
// next channel, where its number is another message's.
func TestReconnectWithOutstandingDeliveries(t *testing.T) {
	w := newWorld(t, nil)
	var sockets sockets
	began, goOn := make(chan string, 100), make(chan struct{})
	c, stop := w.run(inbox.Options{Concurrency: 2, Prefetch: 4, Dial: sockets.dial(w.AMQPURL), Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
		began <- d.ID
		if d.ID == "a" || d.ID == "b" {
			<-goOn
		}
		return effect(ctx, tx, d)
	}})
	w.publish("a", "b", "c", "d", "e", "f")
	<-began
	<-began
	sockets.cut()
	close(goOn) // their transactions commit, whatever has become of the channel
	w.await("all have had their effect", func() bool { return w.count() >= 6 })
	w.awaitNothingLeft(c, stop)
	w.awaitEffects("a", "b", "c", "d", "e", "f")
	if s := w.stats(c); s.Handled != 6 || s.Duplicates != 2 || s.Redelivered == 0 {
		t.Errorf("stats: %+v", s)
	}
}

// The queue is deleted under the consumer, and made again.
func TestQueueDeleted(t *testing.T) {
	w := newWorld(t, nil)
	c, stop := w.run(inbox.Options{})
	w.publish("a")
	w.awaitEffects("a")
	_, err := w.ch.QueueDelete("work", false, false, false)
	w.must(err)
	w.await("it is told", func() bool { return w.stats(c).Failed > 0 })
	_, err = w.ch.QueueDeclare("work", true, false, false, false, nil)
	w.must(err)
	w.publish("b")
	w.awaitEffects("a", "b")
	w.awaitNothingLeft(c, stop)
	if s := w.stats(c); s.LastError == nil || s.Dialled != 1 {
		t.Errorf("stats: %+v", s)
	}
}

// Acks get lost: the connection swallows them. What comes again is a duplicate, and
// is acked then.
func TestLostAcks(t *testing.T) {
	batches(t, func(t *testing.T, batch int) {
		w := newWorld(t, nil)
		var struck atomic.Bool
		p := w.proxy(func(m *wire.Message) wire.Action {
			if m.Effect == wire.Ack && m.Dir == wire.ToServer && !struck.Swap(true) {
				return wire.Action{Kind: wire.Blackhole}
			}
			return wire.Action{}
		})
		first, second := w.lane(p), w.lane(p)
		var dialled atomic.Int32
		dial := func(ctx context.Context) (*amqp.Connection, error) {
			if dialled.Add(1) == 1 {
				return broker.Dial(ctx, w.through(first))
			}
			return broker.Dial(ctx, w.through(second))
		}
		ids := numbered("m", 20)
		w.publish(ids...)
		c, stop := w.run(inbox.Options{Batch: batch, Prefetch: 100, Dial: dial})
		w.await("all have had their effect", func() bool { return w.count() >= 20 })
		w.await("it takes all for acked", func() bool { return w.stats(c).InFlight == 0 })
		w.must(first.Close(t.Context())) // the broker does not wait for heartbeats
		w.await("all come again", func() bool { return w.stats(c).Duplicates == 20 })
		w.awaitNothingLeft(c, stop)
		w.awaitEffects(ids...)
		if s := w.stats(c); s.Handled != 20 || s.Redelivered != 20 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// The connection to the database breaks around the commit: before the server has
// it, or before its answer comes back.
func TestAmbiguousCommit(t *testing.T) {
	for _, at := range []struct {
		name string
		dir  wire.Direction
	}{{"COMMIT", wire.ToServer}, {"COMMIT done", wire.ToClient}} {
		batches(t, func(t *testing.T, batch int) {
			w := newWorld(t, nil)
			var struck, armed atomic.Bool
			p := w.proxy(func(m *wire.Message) wire.Action {
				if armed.Load() && m.Name == at.name && m.Dir == at.dir && !struck.Swap(true) {
					return wire.Action{Kind: wire.Cut}
				}
				return wire.Action{}
			})
			pool := w.poolThrough(w.lane(p))
			armed.Store(true)
			ids := numbered("m", 20)
			w.publish(ids...)
			o := w.options(inbox.Options{Batch: batch, Attempts: 1, Concurrency: 1})
			c, err := inbox.New(pool, o)
			w.must(err)
			stop := w.start(c)
			w.await("all have had their effect", func() bool { return w.count() >= 20 })
			w.awaitNothingLeft(c, stop)
			w.awaitEffects(ids...)
			if !struck.Load() {
				t.Error("nothing was cut")
			}
			s := w.stats(c)
			if twice := s.Duplicates > 0; twice != (at.dir == wire.ToClient) || s.Handled+s.Duplicates != 20 || s.Parked != 0 {
				t.Errorf("stats: %+v", s)
			}
		})
	}
}

// The process dies right before its ack. Another one takes over.
func TestKilledBeforeTheAck(t *testing.T) {
	w := newWorld(t, nil)
	var struck atomic.Bool
	died := make(chan struct{})
	p := w.proxy(func(m *wire.Message) wire.Action {
		if m.Effect == wire.Ack && m.Dir == wire.ToServer && !struck.Swap(true) {
			close(died)
			return wire.Action{Kind: wire.Freeze}
		}
		return wire.Action{}
	})
	l := w.lane(p)
	w.publish("a", "b", "c")
	o := w.options(inbox.Options{StopTimeout: 10 * time.Millisecond, Dial: func(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, w.through(l)) }})
	dead, err := inbox.New(w.poolThrough(l), o)
	w.must(err)
	ctx, kill := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- dead.Run(ctx) }()
	<-died
	kill()
	<-ended
	w.must(l.Close(t.Context()))
	c, stop := w.run(inbox.Options{})
	w.await("all have had their effect", func() bool { return w.count() >= 3 })
	w.awaitNothingLeft(c, stop)
	w.awaitEffects("a", "b", "c")
	if s := w.stats(c); s.Duplicates == 0 {
		t.Errorf("stats: %+v", s)
	}
}

// Stopped in the middle of its work, it loses nothing and does nothing twice, and
// what it has done it has acked.
func TestGracefulStop(t *testing.T) {
	batches(t, func(t *testing.T, batch int) {
		w := newWorld(t, nil)
		ids := numbered("m", 500)
		w.publish(ids...)
		for handled := 0; handled < 500; {
			some := make(chan struct{}, 1000)
			c, stop := w.run(inbox.Options{Batch: batch, Concurrency: 4, Hooks: inbox.Hooks{Handled: func(inbox.Delivery) { some <- struct{}{} }}})
			for range min(50, 500-handled) {
				select {
				case <-some:
				case <-time.After(patience):
					t.Fatal("nothing more is handled")
				}
			}
			w.must(stop())
			s := w.stats(c)
			handled += int(s.Handled)
			if s.Duplicates != 0 || s.InFlight != 0 {
				t.Fatalf("stats: %+v", s)
			}
			w.await("the rest is back in the queue", func() bool { return w.depth("work") == 500-handled })
		}
		w.awaitEffects(ids...)
	})
}

// A handler that does not listen: Run ends in bounded time all the same.
func TestStopTimeout(t *testing.T) {
	w := newWorld(t, nil)
	began, goOn := make(chan struct{}, 10), make(chan struct{})
	c := w.make(inbox.Options{StopTimeout: 100 * time.Millisecond, Handle: func(context.Context, pgx.Tx, inbox.Delivery) error {
		began <- struct{}{}
		<-goOn
		return nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	w.publish("a")
	<-began
	at := time.Now()
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, inbox.ErrStopTimeout) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not stop")
	}
	if took := time.Since(at); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	close(goOn)
	other, stop := w.run(inbox.Options{})
	w.awaitEffects("a")
	w.awaitNothingLeft(other, stop)
}

// A handler that does listen is told when the time is over.
func TestStopCancelsHandlers(t *testing.T) {
	w := newWorld(t, nil)
	began := make(chan struct{}, 10)
	c := w.make(inbox.Options{StopTimeout: 100 * time.Millisecond, Handle: func(ctx context.Context, tx pgx.Tx, _ inbox.Delivery) error {
		began <- struct{}{}
		_, err := tx.Exec(ctx, "SELECT pg_sleep(60)")
		return err
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	w.publish("a")
	<-began
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, inbox.ErrStopTimeout) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not stop")
	}
	w.await("the message is back", func() bool { return w.depth("work") == 1 })
	c, stop := w.run(inbox.Options{})
	w.awaitEffects("a")
	w.awaitNothingLeft(c, stop)
}

// With a single active consumer the order of a key outlives the handing over.
func TestHandOver(t *testing.T) {
	w := newWorld(t, amqp.Table{"x-single-active-consumer": true})
	var ids []string
	for i := range 60 {
		ids = append(ids, fmt.Sprintf("a%03d", i), fmt.Sprintf("b%03d", i))
	}
	options := inbox.Options{Concurrency: 3, Batch: 4, Key: func(d inbox.Delivery) string { return d.ID[:1] }}
	_, stop := w.run(options)
	for i := 0; i < len(ids); i += 20 {
		_, next := w.run(options) // stands by
		w.publish(ids[i : i+20]...)
		w.await("it is in the middle of it", func() bool { return w.count() > i+2 })
		w.must(stop())
		stop = next
	}
	w.await("all have had their effect", func() bool { return w.count() >= len(ids) })
	w.must(stop())
	w.awaitEffects(ids...)
	w.checkOrder()
}

// The consumer forgets by itself what is older than the retention.
func TestRetention(t *testing.T) {
	w := newWorld(t, nil)
	c, stop := w.run(inbox.Options{Retention: 30 * time.Millisecond, CleanInterval: 5 * time.Millisecond})
	w.publish("a")
	w.awaitEffects("a")
	w.await("its row is gone", func() (gone bool) {
		w.must(w.DB.QueryRow(t.Context(), "SELECT count(*) = 0 FROM inbox_messages").Scan(&gone))
		return gone
	})
	w.publish("a") // too late to be known
	w.awaitEffects("a", "a")
	w.awaitNothingLeft(c, stop)
}

// Work goes on under new generations, with the retention just long enough.
func TestGenerationsUnderLoad(t *testing.T) {
	w := newWorld(t, nil)
	ids := numbered("m", 300)
	for range 3 {
		w.run(inbox.Options{Retention: time.Hour, CleanInterval: time.Millisecond, Batch: 3})
	}
	for i := 0; i < 300; i += 100 {
		w.publish(ids[i : i+100]...)
		w.exec("UPDATE inbox_generation SET started_at = started_at - interval '1 hour'")
		w.publish(ids[i : i+100]...)
	}
	w.await("all have had their effect", func() bool { return w.count() >= 300 && w.depth("work") == 0 })
	w.await("generations have begun", func() (ok bool) {
		w.must(w.DB.QueryRow(t.Context(), "SELECT current >= 2 FROM inbox_generation").Scan(&ok))
		return ok
	})
	w.awaitEffects(ids...)
}

func (w *world) count() (n int) {
	w.t.Helper()
	w.must(w.DB.QueryRow(w.t.Context(), "SELECT count(*) FROM effects").Scan(&n))
	return n
}

// checkOrder checks that the effects of each key, the first byte of an ID, are in
// the order of the IDs.
func (w *world) checkOrder() {
	w.t.Helper()
	last := map[byte]string{}
	for _, id := range w.effects() {
		if id < last[id[0]] {
			w.t.Errorf("%s came after %s", id, last[id[0]])
		}
		last[id[0]] = id
	}
}

// terminate ends all sessions with the database but those at rest, of which the
// test's own is one.
func (w *world) terminate() {
	w.t.Helper()
	_, err := w.AdminDB.Exec(w.t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND (state <> 'idle' OR random() < 0.5)", w.Name)
	w.must(err)
	w.DB.Reset() // or the test itself would meet the dead ones
}

// proxy stands before both servers.
func (w *world) proxy(decide func(*wire.Message) wire.Action) *wire.Proxy {
	w.t.Helper()
	host := func(address string) string {
		u, err := url.Parse(address)
		w.must(err)
		return u.Host
	}
	p, err := wire.New(wire.Config{Postgres: host(w.DatabaseURL), AMQP: host(w.AMQPURL), Decide: decide})
	w.must(err)
	w.t.Cleanup(func() { _ = p.Close() })
	return p
}

func (w *world) lane(p *wire.Proxy) *wire.Lane {
	w.t.Helper()
	l, err := p.Lane()
	w.must(err)
	return l
}

// through is the broker's address behind a lane.
func (w *world) through(l *wire.Lane) string {
	w.t.Helper()
	u, err := broker.URL(w.AMQPURL, broker.Change{Address: l.AMQP()})
	w.must(err)
	return u
}

func (w *world) poolThrough(l *wire.Lane) *pgxpool.Pool {
	w.t.Helper()
	u, err := postgres.URL(w.DatabaseURL, postgres.Change{Address: l.Postgres(), Params: map[string]string{"sslmode": "disable"}})
	w.must(err)
	pool, err := postgres.Open(w.t.Context(), u)
	w.must(err)
	w.t.Cleanup(func() { go pool.Close() })
	return pool
}

// sockets are the connections that a consumer has made to the broker.
type sockets struct {
	mu  sync.Mutex
	all []net.Conn
}

func (s *sockets) dial(address string) func(context.Context) (*amqp.Connection, error) {
	return func(ctx context.Context) (*amqp.Connection, error) {
		return broker.Dial(ctx, address, func(c *amqp.Config) {
			dial := c.Dial
			c.Dial = func(network, addr string) (net.Conn, error) {
				conn, err := dial(network, addr)
				if err == nil {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.all = append(s.all, conn)
				}
				return conn, err
			}
		})
	}
}

// cut breaks them all.
func (s *sockets) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range slices.Clone(s.all) {
		_ = conn.Close()
	}
	s.all = nil
}
