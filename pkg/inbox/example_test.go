package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/inbox"
	"crashcourse/pkg/servertest"
)

// shop is what the examples work with: a queue of payments, and accounts.
type shop struct {
	*servertest.Servers
	ch *amqp.Channel
}

func openShop(ctx context.Context) shop {
	slog.SetLogLoggerLevel(slog.LevelError)
	s := shop{Servers: servertest.Must()}
	must(inbox.Migrate(ctx, s.DB))
	must(s.DB.Exec(ctx, "CREATE TABLE payments (n int GENERATED ALWAYS AS IDENTITY, id text NOT NULL)"))
	var err error
	s.ch, err = s.Conn.Channel()
	must(err)
	must(s.ch.QueueDeclare("payments", true, false, false, false, nil))
	return s
}

func (s shop) publish(ids ...string) {
	for _, id := range ids {
		must(s.ch.Publish("", "payments", false, false, amqp.Publishing{MessageId: id, Body: []byte(id), DeliveryMode: amqp.Persistent}))
	}
}

// pay is the handler of most examples.
func pay(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
	_, err := tx.Exec(ctx, "INSERT INTO payments (id) VALUES ($1)", d.ID)
	return err
}

// payments returns what was paid, in the order of payment.
func (s shop) payments(ctx context.Context) (ids []string) {
	must(s.DB.QueryRow(ctx, "SELECT coalesce(array_agg(id ORDER BY n), '{}') FROM payments").Scan(&ids))
	return ids
}

func (s shop) dial(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, s.AMQPURL) }

// start runs a consumer, and returns what waits until so many messages are settled,
// and stops it.
func (s shop) start(ctx context.Context, o inbox.Options) (c *inbox.Consumer, finish func(settled uint64)) {
	o.Consumer, o.Queue, o.Dial = "billing", "payments", s.dial
	c, err := inbox.New(s.DB, o)
	must(err)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return c, func(settled uint64) {
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			stats, err := c.Stats(ctx)
			must(err)
			if stats.Handled+stats.Duplicates+stats.Parked >= settled && stats.InFlight == 0 {
				break
			}
			if time.Now().After(deadline) {
				log.Fatalf("not settled in time: %+v", stats)
			}
		}
		stop()
		must(<-ended)
	}
}

func must(args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok && err != nil {
			log.Fatal(err)
		}
	}
}

// Each message is handled once, however often it arrives.
func Example() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	s.publish("payment-1", "payment-1", "payment-2", "payment-1")

	c, finish := s.start(ctx, inbox.Options{Handle: pay, Concurrency: 1})
	finish(4)

	stats, err := c.Stats(ctx)
	must(err)
	fmt.Println(s.payments(ctx))
	fmt.Println(stats.Handled, "handled,", stats.Duplicates, "duplicates")
	// Output:
	// [payment-1 payment-2]
	// 2 handled, 2 duplicates
}

// Once is for a consumer of your own, or for what comes by another way than a queue:
// a webhook, a file.
func ExampleOnce() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()

	receive := func(id string) (first bool, err error) {
		err = pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
			if first, err = inbox.Once(ctx, tx, "webhook", id); err != nil || !first {
				return err
			}
			_, err = tx.Exec(ctx, "INSERT INTO payments (id) VALUES ($1)", id)
			return err
		})
		return first, err
	}
	for range 3 {
		fmt.Println(receive("payment-1"))
	}
	fmt.Println(s.payments(ctx))
	// Output:
	// true <nil>
	// false <nil>
	// false <nil>
	// [payment-1]
}

// Up to a hundred messages share a transaction. One of them is bad; the others are
// handled all the same.
func ExampleOptions_batch() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	s.publish("payment-1", "payment-2", "bad", "payment-3")

	c, finish := s.start(ctx, inbox.Options{
		Batch:       100,
		Concurrency: 1,
		Logger:      slog.New(slog.DiscardHandler),
		Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
			if d.ID == "bad" {
				return inbox.Permanent(errors.New("no amount"))
			}
			return pay(ctx, tx, d)
		},
	})
	finish(4)

	stats, err := c.Stats(ctx)
	must(err)
	fmt.Println(s.payments(ctx), stats.Parked, "parked")
	// Output:
	// [payment-1 payment-2 payment-3] 1 parked
}

// Where one statement can have the effect of many messages, that is the fastest way.
func ExampleOptions_handleBatch() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	s.publish("payment-1", "payment-2", "payment-2", "payment-3")

	_, finish := s.start(ctx, inbox.Options{
		Batch:       100,
		Concurrency: 1,
		HandleBatch: func(ctx context.Context, tx pgx.Tx, batch []inbox.Delivery) error {
			var ids []string
			for _, d := range batch {
				ids = append(ids, d.ID)
			}
			_, err := tx.Exec(ctx, "INSERT INTO payments (id) SELECT unnest($1::text[])", ids)
			return err
		},
	})
	finish(4)

	fmt.Println(s.payments(ctx))
	// Output:
	// [payment-1 payment-2 payment-3]
}

// Messages of one account are handled in order, also when one has to be tried
// again; those of other accounts do not wait for it.
func ExampleOptions_key() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	s.publish("alice-1", "alice-2", "bob-1", "bob-2")

	bob := make(chan struct{})
	_, finish := s.start(ctx, inbox.Options{
		Key:    func(d inbox.Delivery) string { name, _, _ := strings.Cut(d.ID, "-"); return name },
		Logger: slog.New(slog.DiscardHandler),
		Hooks: inbox.Hooks{Handled: func(d inbox.Delivery) {
			if d.ID == "bob-2" {
				close(bob)
			}
		}},
		Attempts: 1000,
		MaxRetry: 100 * time.Millisecond,
		Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
			if d.ID == "alice-1" {
				select {
				case <-bob:
				default:
					return errors.New("not yet")
				}
			}
			return pay(ctx, tx, d)
		},
	})
	finish(4)
	fmt.Println(s.payments(ctx))
	// Output:
	// [bob-1 bob-2 alice-1 alice-2]
}

// The publisher sends no message ID, but the order's number in a header.
func ExampleOptions_id() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	for range 2 {
		must(s.ch.Publish("", "payments", false, false, amqp.Publishing{Headers: amqp.Table{"order": "order-7"}}))
	}

	_, finish := s.start(ctx, inbox.Options{
		Handle: pay,
		ID: func(d amqp.Delivery) (string, error) {
			order, ok := d.Headers["order"].(string)
			if !ok {
				return "", errors.New("no order")
			}
			return order, nil
		},
	})
	finish(2)
	fmt.Println(s.payments(ctx))
	// Output:
	// [order-7]
}

// What cannot be handled is in the table inbox_parked, with the reason. When the
// cause is mended, Replay handles it once more.
func ExampleConsumer_Replay() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	s.publish("payment-1")

	var mu sync.Mutex
	mended := false
	c, finish := s.start(ctx, inbox.Options{
		Attempts: 3,
		MinRetry: time.Millisecond,
		Logger:   slog.New(slog.DiscardHandler),
		Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if !mended {
				return errors.New("unknown currency")
			}
			return pay(ctx, tx, d)
		},
	})
	finish(1)
	var id, reason string
	var attempts int
	must(s.DB.QueryRow(ctx, "SELECT message_id, attempts, reason FROM inbox_parked").Scan(&id, &attempts, &reason))
	fmt.Printf("%s after %d attempts: %s\n", id, attempts, reason)

	mu.Lock()
	mended = true
	mu.Unlock()
	fmt.Println(c.Replay(ctx))
	fmt.Println(s.payments(ctx))
	// Output:
	// payment-1 after 3 attempts: unknown currency
	// 1 <nil>
	// [payment-1]
}

// A message that cannot be handled goes to the dead letter queue, which has to be
// declared.
func ExampleOptions_deadLetter() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	must(s.ch.QueueDeclare("dead", true, false, false, false, nil))
	must(s.ch.QueueDelete("payments", false, false, false))
	must(s.ch.QueueDeclare("payments", true, false, false, false, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}))
	dead, err := s.ch.Consume("dead", "", true, false, false, false, nil)
	must(err)
	s.publish("")

	_, finish := s.start(ctx, inbox.Options{Handle: pay, DeadLetter: true, Logger: slog.New(slog.DiscardHandler)})
	finish(1)
	d := <-dead
	fmt.Println(d.Headers["x-first-death-queue"], d.Headers["x-first-death-reason"])
	// Output:
	// payments rejected
}

// The effect is in another system. Each attempt calls it with the same key, and it
// charges once: here the first answer gets lost, and then a commit fails.
func ExampleOptions_before() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	s.publish("payment-1")

	var mu sync.Mutex
	charges, calls := map[string]int{}, 0
	bank := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		calls++
		key := r.Header.Get("Idempotency-Key")
		if charges[key] == 0 {
			charges[key] = len(charges) + 1
		}
		if calls == 1 {
			panic(http.ErrAbortHandler) // charged, and the connection breaks
		}
		fmt.Fprintf(w, "charge %d", charges[key])
	}))
	defer bank.Close()

	_, finish := s.start(ctx, inbox.Options{
		MinRetry: time.Millisecond,
		Logger:   slog.New(slog.DiscardHandler),
		Before: func(ctx context.Context, d inbox.Delivery) (any, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, bank.URL, strings.NewReader(d.ID))
			if err != nil {
				return nil, err
			}
			req.Header.Set("Idempotency-Key", d.IdempotencyKey())
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return nil, err
			}
			defer res.Body.Close()
			answer, err := io.ReadAll(res.Body)
			return string(answer), err
		},
		Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
			if d.Attempt == 2 {
				return errors.New("the database is full")
			}
			_, err := tx.Exec(ctx, "INSERT INTO payments (id) VALUES ($1)", d.Before)
			return err
		},
	})
	finish(1)
	fmt.Println(calls, "calls,", len(charges), "charge, recorded:", s.payments(ctx))
	// Output:
	// 3 calls, 1 charge, recorded: [charge 1]
}

// Stats are the figures to watch. Hooks say what happens when it does.
func ExampleConsumer_Stats() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	s.publish("payment-1", "payment-2", "payment-2")
	must(s.ch.Publish("", "payments", false, false, amqp.Publishing{Body: []byte("no ID")}))

	c, finish := s.start(ctx, inbox.Options{
		Handle: pay,
		Logger: slog.New(slog.DiscardHandler),
		Hooks: inbox.Hooks{Parked: func(d inbox.Delivery, err error) {
			fmt.Printf("parked %q: %v\n", d.Body, err)
		}},
	})
	finish(4)
	stats, err := c.Stats(ctx)
	must(err)
	fmt.Println("handled", stats.Handled, "duplicates", stats.Duplicates, "parked", stats.Parked, "waiting", stats.Waiting, "in flight", stats.InFlight, "late", stats.Lag > 0)
	// Output:
	// parked "no ID": inbox: invalid message ID: it is empty
	// handled 2 duplicates 1 parked 1 waiting 1 in flight 0 late false
}

// A key for calls to other systems is the same wherever it is made.
func ExampleIdempotencyKey() {
	fmt.Println(inbox.IdempotencyKey("billing", "payment-1"))
	fmt.Println(inbox.IdempotencyKey("billing", "payment-1") == inbox.IdempotencyKey("shipping", "payment-1"))
	// Output:
	// 37d635495d3b947acb459992a4f69c09f68362c1494ffa77fc95b73d6f1a9aef
	// false
}
