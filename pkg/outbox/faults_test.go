package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rabbithole "github.com/michaelklishin/rabbit-hole/v3"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/outbox"
	"crashcourse/pkg/state"
)

// A queue that is full refuses messages: the broker nacks them.
func TestNacked(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newUnboundWorld(t)
		w.must(w.ch.ExchangeDeclare("small", "topic", true, false, false, false, nil))
		_, err := w.ch.QueueDeclare("small", true, false, false, false, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
		w.must(err)
		w.must(w.ch.QueueBind("small", "#", "small", false, nil))

		var log refusals
		r, _ := w.run(outbox.Options{Source: source, Exchange: "small", MaxRetry: 200 * time.Millisecond, Hooks: outbox.Hooks{Refused: log.add}})
		w.awaitSession(source)
		w.enqueue("a", "order.changed", 5)
		w.await("the second is refused twice", func() bool { return log.most() >= 2 })
		if first := log.first(); first.Reason != "nacked by the broker" || first.Returned || first.Attempts != 1 || first.Wait <= 0 {
			t.Errorf("refusal: %+v", first)
		}
		s, err := r.Stats(t.Context())
		w.must(err)
		if s.Held != 1 || s.Refused < 2 || s.Lag <= 0 {
			t.Errorf("stats: %+v", s)
		}
		// Now somebody consumes.
		deliveries, err := w.ch.Consume("small", "", true, false, false, false, nil)
		w.must(err)
		var arrived []string
		for len(arrived) < 5 {
			select {
			case d := <-deliveries:
				if !slices.Contains(arrived, d.MessageId) {
					arrived = append(arrived, d.MessageId)
				}
			case <-time.After(patience):
				t.Fatalf("%d of 5 arrived", len(arrived))
			}
		}
		for i, id := range w.enqueued {
			if arrived[i] != id.String() {
				t.Errorf("number %d is not the event of that number", i)
			}
		}
		w.await("nothing is held", func() bool { s, err := r.Stats(t.Context()); return err == nil && s.Held == 0 && s.Backlog == 0 })
	})
}

// Many messages are under way to two queues, and one of the two refuses: acks
// and nacks arrive mixed, out of order and many in one.
func TestNackedAmongMany(t *testing.T) {
	w := newUnboundWorld(t)
	w.must(w.ch.ExchangeDeclare("mixed", "topic", true, false, false, false, nil))
	_, err := w.ch.QueueDeclare("open", true, false, false, false, nil)
	w.must(err)
	_, err = w.ch.QueueDeclare("full", true, false, false, false, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	w.must(err)
	w.must(w.ch.QueueBind("open", "order.open", "mixed", false, nil))
	w.must(w.ch.QueueBind("full", "order.full", "mixed", false, nil))
	_, err = w.DB.Exec(t.Context(), `INSERT INTO outbox (message_id, aggregate_id, type, payload)
		SELECT gen_random_uuid(), n::text, CASE WHEN n % 2 = 0 THEN 'order.open' ELSE 'order.full' END, '{}' FROM generate_series(1, 1000) AS n`)
	w.must(err)
	_, stop := w.run(outbox.Options{Exchange: "mixed"})
	marked := func(kind string) (n int) {
		w.must(w.DB.QueryRow(t.Context(), `SELECT count(*) FROM outbox WHERE type = $1 AND published_at IS NOT NULL`, kind).Scan(&n))
		return n
	}
	w.await("all that can be published is", func() bool { return marked("order.open") == 500 })
	stop()
	full, err := w.ch.QueueDeclarePassive("full", true, false, false, false, nil)
	w.must(err)
	if n := marked("order.full"); n != full.Messages {
		t.Errorf("%d events count as published to the full queue, which holds %d", n, full.Messages)
	}
}

// Events for which no queue is bound come back. They are kept, those behind
// them wait, and all others are published.
func TestReturned(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newUnboundWorld(t)
		w.bind("order.*")
		var log refusals
		r, stop := w.run(outbox.Options{Source: source, Batch: 10, MaxRetry: 500 * time.Millisecond, Hooks: outbox.Hooks{Refused: log.add}})
		w.awaitSession(source)
		for i := range 30 { // more than fit into a batch
			w.enqueue(fmt.Sprint("stuck", i), "parcel.sent", 2)
			w.enqueue(fmt.Sprint("stuck", i), "order.closed", 1)
		}
		w.enqueue("free", "order.placed", 50)
		w.await("the others arrive", func() bool { return len(w.numbers("free")) == 50 })
		w.await("all stuck ones came back", func() bool { return log.count() >= 30 })
		if first := log.first(); first.Reason != "returned: 312 NO_ROUTE" || !first.Returned {
			t.Errorf("refusal: %+v", first)
		}
		if n := len(w.firsts()); n != 50 {
			t.Errorf("%d arrived, although something before them was refused", n-50)
		}
		var reason string
		w.must(w.DB.QueryRow(t.Context(), "SELECT reason FROM outbox_held WHERE aggregate_id = 'stuck7'").Scan(&reason))
		if reason != "returned: 312 NO_ROUTE" {
			t.Errorf("outbox_held says %q", reason)
		}

		// It remembers over a restart.
		w.must(stop())
		r, _ = w.run(outbox.Options{Source: source, Batch: 10, MaxRetry: 500 * time.Millisecond})
		w.awaitSession(source)
		w.bind("parcel.*")
		w.awaitAll()
		w.await("nothing is held", func() bool { s, err := r.Stats(t.Context()); return err == nil && s.Held == 0 })
		w.enqueue("stuck0", "order.reopened", 3)
		w.awaitAll()
	})
}

// An operator may have a held aggregate tried at once.
func TestReleasedByHand(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newUnboundWorld(t)
		var log refusals
		w.run(outbox.Options{Source: source, MinRetry: 50 * time.Millisecond, MaxRetry: time.Hour, Hooks: outbox.Hooks{Refused: log.add}})
		w.awaitSession(source)
		w.enqueue("a", "order.placed", 3)
		w.await("it is held", func() bool { return log.most() >= 3 })
		w.bind("#")
		_, err := w.DB.Exec(t.Context(), "UPDATE outbox_held SET until = 'infinity'")
		w.must(err)
		w.enqueue("b", "order.placed", 3)
		w.await("others arrive", func() bool { return len(w.numbers("b")) == 3 })
		if n := len(w.numbers("a")); n != 0 {
			t.Errorf("%d arrived, although they are held", n)
		}
		_, err = w.DB.Exec(t.Context(), "DELETE FROM outbox_held")
		w.must(err)
		w.awaitAll()
		w.enqueue("a", "order.placed", 1)
		w.awaitAll()
	})
}

// With Pipeline several events of an aggregate are refused at once.
func TestReturnedInPipeline(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newUnboundWorld(t)
		var log refusals
		w.run(outbox.Options{Source: source, Pipeline: true, MaxRetry: 200 * time.Millisecond, Hooks: outbox.Hooks{Refused: log.add}})
		w.awaitSession(source)
		w.enqueue("a", "order.placed", 20)
		w.await("they came back", func() bool { return log.count() >= 20 })
		w.bind("#")
		w.await("all events arrive", func() bool { return len(w.firsts()) == 20 })
		w.await("all rows are marked", func() bool { return w.count("published_at IS NULL") == 0 })
	})
}

// The broker closes the channel because of one message. That one is found and
// held; the others arrive.
func TestPoison(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		w.forbid("secret.")
		var log refusals
		r, _ := w.run(outbox.Options{Source: source, MaxRetry: 300 * time.Millisecond, Hooks: outbox.Hooks{Refused: log.add}})
		w.awaitSession(source)
		for i := range 10 {
			w.enqueue(fmt.Sprint("good", i), "order.placed", 3)
		}
		w.enqueue("bad", "order.placed", 1)
		w.enqueue("bad", "secret.told", 1)
		w.enqueue("bad", "order.closed", 1)
		for i := range 10 {
			w.enqueue(fmt.Sprint("good", i), "order.paid", 3)
		}
		w.await("all but two arrive", func() bool { return len(w.firsts()) == 61 })
		w.checkOrder()
		w.await("the bad one is held", func() bool { s, err := r.Stats(t.Context()); return err == nil && s.Held == 1 && s.Backlog == 2 })
		if first := log.first(); !strings.Contains(first.Reason, "ACCESS_REFUSED") {
			t.Errorf("refusal: %+v", first)
		}
		w.forbid("nothing")
		w.awaitAll()
	})
}

// A type that AMQP cannot express, put in by somebody else than Enqueue.
func TestUnpublishable(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		r, _ := w.run(outbox.Options{Source: source})
		w.awaitSession(source)
		_, err := w.DB.Exec(t.Context(), "INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES (gen_random_uuid(), 'bad', repeat('x', 256), '{}')")
		w.must(err)
		w.enqueue("bad", "order.closed", 1)
		w.enqueue("good", "order.placed", 2)
		w.await("the good ones arrive", func() bool { return len(w.firsts()) == 2 })
		w.await("the bad one is held", func() bool { s, err := r.Stats(t.Context()); return err == nil && s.Held == 1 && s.Backlog == 2 })
		_, err = w.DB.Exec(t.Context(), "DELETE FROM outbox WHERE length(type) = 256; DELETE FROM outbox_held")
		w.must(err)
		w.awaitAll()
	})
}

// The exchange does not exist yet: nothing is lost, and nothing is held.
func TestNoExchange(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		w.must(w.ch.ExchangeDelete("events", false, false))
		failed := make(chan error, 100)
		w.run(outbox.Options{Source: source, MaxRetry: 300 * time.Millisecond, Hooks: outbox.Hooks{Failed: func(err error) {
			select {
			case failed <- err:
			default:
			}
		}}})
		w.enqueue("a", "order.placed", 3)
		w.enqueue("b", "order.placed", 3)
		for range 2 {
			select {
			case err := <-failed:
				if !strings.Contains(err.Error(), "no exchange 'events'") {
					t.Errorf("failed: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("no error was told")
			}
		}
		w.must(w.ch.ExchangeDeclare("events", "topic", true, false, false, false, nil))
		w.bind("#")
		w.awaitAll()
	})
}

// Both servers break all connections again and again, and for a while no queue
// is bound.
func TestConnectionsBreak(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		var sockets sockets
		w.run(outbox.Options{Source: source, Batch: 20, MinRetry: 10 * time.Millisecond, MaxRetry: 100 * time.Millisecond, Dial: func(ctx context.Context) (*amqp.Connection, error) {
			return broker.Dial(ctx, w.AMQPURL, func(c *amqp.Config) { c.Dial = sockets.dial(c.Dial) })
		}})
		for i := range 12 {
			if i%4 == 1 {
				w.must(w.ch.QueueUnbind("consumer", "#", "events", nil))
			}
			for a := range 10 {
				w.enqueue(fmt.Sprint("a", a), "order.changed", 5)
			}
			if i%4 == 3 {
				w.bind("#")
			}
			if i%2 == 0 {
				sockets.cut()
			} else {
				_, err := w.AdminDB.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND state LIKE 'idle%' OR backend_type = 'walsender' AND datname = $1", w.Name)
				w.must(err)
				w.DB.Reset() // or the test itself would meet the dead ones
			}
		}
		dups := w.awaitAll()
		t.Logf("%d duplicates", dups)
	})
}

// The management API closes the connection.
func TestConnectionClosedByOperator(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, _ := w.run(outbox.Options{MinRetry: 10 * time.Millisecond})
	w.enqueue("a", "order.placed", 1)
	w.awaitAll()
	w.await("the server lists the relay's connection, and closes it", func() bool {
		_, err := w.Admin.CloseConnections(t.Context(), w.Name)
		w.must(err)
		s, err := r.Stats(t.Context())
		w.must(err)
		return s.Dialled >= 2
	})
}

// Stopped in the middle of its work, it loses nothing and sends nothing twice.
func TestGracefulStop(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		for a := range 50 {
			w.enqueue(fmt.Sprint("a", a), "order.changed", 20)
		}
		for published := 0; published < 1000; {
			some := make(chan struct{}, 1000)
			r, stop := w.run(outbox.Options{Source: source, Batch: 50, Hooks: outbox.Hooks{Published: func(outbox.Message) { some <- struct{}{} }}})
			for range 30 {
				<-some
			}
			w.must(stop())
			s, err := r.Stats(t.Context())
			w.must(err)
			published += int(s.Published)
			if int(s.Backlog) != 1000-published {
				t.Fatalf("%d pending after %d were published", s.Backlog, published)
			}
			if published > 900 { // the rest at once
				w.run(outbox.Options{Source: source})
				break
			}
		}
		if dups := w.awaitAll(); dups != 0 {
			t.Errorf("%d duplicates", dups)
		}
	})
}

// A broker that has stopped answering: Run ends in bounded time all the same.
func TestStopWhileTheBrokerIsSilent(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		var sockets sockets
		r, err := outbox.NewRelay(w.DB, outbox.Options{Source: source, StopTimeout: 200 * time.Millisecond, Dial: func(ctx context.Context) (*amqp.Connection, error) {
			return broker.Dial(ctx, w.AMQPURL, func(c *amqp.Config) { c.Dial = sockets.dial(c.Dial) })
		}})
		w.must(err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		w.awaitSession(source)
		w.enqueue("a", "order.placed", 1)
		w.awaitAll()
		sockets.silence()
		w.enqueue("a", "order.placed", 1)
		w.await("it is swallowed", func() bool { return sockets.swallowed() > 0 })
		began := time.Now()
		stop()
		if err := <-ended; !errors.Is(err, outbox.ErrStopTimeout) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		w.run(outbox.Options{Source: source}) // the next one publishes it
		w.awaitAll()
	})
}

// A broker that has stopped answering counts as lost after Timeout.
func TestBrokerFallsSilent(t *testing.T) {
	everySource(t, func(t *testing.T, source outbox.Source) {
		w := newWorld(t)
		var sockets sockets
		w.run(outbox.Options{Source: source, Timeout: 500 * time.Millisecond, MinRetry: 10 * time.Millisecond, Dial: func(ctx context.Context) (*amqp.Connection, error) {
			return broker.Dial(ctx, w.AMQPURL, func(c *amqp.Config) { c.Dial = sockets.dial(c.Dial) })
		}})
		w.awaitSession(source)
		w.enqueue("a", "order.placed", 1)
		w.awaitAll()
		sockets.silence()
		w.enqueue("a", "order.placed", 2)
		w.awaitAll()
	})
}

// refusals collects what a relay tells of refusals.
type refusals struct {
	mu  sync.Mutex
	all []outbox.Refusal
}

func (r *refusals) add(_ outbox.Message, refusal outbox.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, refusal)
}

func (r *refusals) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

func (r *refusals) first() outbox.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		return outbox.Refusal{}
	}
	return r.all[0]
}

// most returns the highest number of attempts.
func (r *refusals) most() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.all {
		n = max(n, one.Attempts)
	}
	return n
}

// sockets are the connections that a relay has made to the broker.
type sockets struct {
	mu  sync.Mutex
	all []*socket
}

func (s *sockets) dial(dial func(network, addr string) (net.Conn, error)) func(network, addr string) (net.Conn, error) {
	return func(network, addr string) (net.Conn, error) {
		conn, err := dial(network, addr)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all = append(s.all, &socket{Conn: conn})
		return s.all[len(s.all)-1], nil
	}
}

// cut breaks them all.
func (s *sockets) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		_ = one.Close()
	}
	s.all = nil
}

// silence makes all that exist swallow what is written.
func (s *sockets) silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		one.mu.Lock()
		one.silent = true
		one.mu.Unlock()
	}
}

func (s *sockets) swallowed() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		one.mu.Lock()
		n += one.swallowed
		one.mu.Unlock()
	}
	return n
}

type socket struct {
	net.Conn
	mu        sync.Mutex
	silent    bool
	swallowed int
}

func (s *socket) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent {
		s.swallowed += len(b)
		return io.Discard.Write(b)
	}
	return s.Conn.Write(b)
}

// forbid lets the user publish only with routing keys that do not begin so.
func (w *world) forbid(prefix string) {
	w.t.Helper()
	at, err := state.LoadServers()
	w.must(err)
	if at.Management == "" {
		at.Management, err = broker.ManagementURL(at.AMQP)
		w.must(err)
	}
	u, err := url.Parse(at.Management)
	w.must(err)
	password, _ := u.User.Password()
	c, err := rabbithole.NewClient(u.Scheme+"://"+u.Host, u.User.Username(), password)
	w.must(err)
	others := "^(?!" + regexp.QuoteMeta(prefix) + ")"
	res, err := c.UpdateTopicPermissionsIn(w.Name, w.Name, rabbithole.TopicPermissions{Exchange: "events", Write: others, Read: ".*"})
	w.must(err)
	_ = res.Body.Close()
}
