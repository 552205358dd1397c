package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/breaker"
	"crashcourse/pkg/broker"
	"crashcourse/pkg/outbox"
	"crashcourse/pkg/servertest"
)

// shop is what the examples work with: orders, and a bank.
type shop struct {
	*servertest.Servers
	bank *bank
}

func openShop(ctx context.Context) shop {
	s := shop{Servers: servertest.Must(), bank: newBank()}
	must(breaker.Migrate(ctx, s.DB))
	must(s.DB.Exec(ctx, "CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL DEFAULT 'new')"))
	return s
}

func (s shop) close() {
	s.bank.Close()
	must(s.Servers.Close())
}

// paid is Done in most examples.
func paid(ctx context.Context, tx pgx.Tx, a breaker.Attempt, answer []byte) error {
	_, err := tx.Exec(ctx, "INSERT INTO orders VALUES ($1, 'paid') ON CONFLICT (id) DO UPDATE SET status = 'paid'", a.Key)
	return err
}

// queue makes a queue that decides in tens of milliseconds.
func (s shop) queue(o breaker.QueueOptions) *breaker.Queue {
	quiet := slog.New(slog.DiscardHandler)
	b, err := breaker.New(breaker.Options{Name: "bank", ResetTimeout: 50 * time.Millisecond, Logger: quiet})
	must(err)
	o.Name, o.Breaker, o.Logger = "payments", b, quiet
	o.MinRetry, o.MaxRetry, o.PollInterval = 10*time.Millisecond, 100*time.Millisecond, 10*time.Millisecond
	if o.Call == nil {
		o.Call = pay(s.bank.URL) // an HTTP POST with the header Idempotency-Key
	}
	if o.Done == nil {
		o.Done = paid
	}
	q, err := breaker.NewQueue(s.DB, o)
	must(err)
	return q
}

// work runs a queue until ok.
func work(ctx context.Context, q *breaker.Queue, ok func(breaker.Stats) bool) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		stats, err := q.Stats(ctx)
		must(err)
		if ok(stats) {
			break
		}
		if time.Now().After(deadline) {
			log.Fatalf("not in time: %+v", stats)
		}
	}
	stop()
	must(<-ended)
}

func settled(s breaker.Stats) bool { return s.Queued == 0 }

func must(args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok && err != nil {
			log.Fatal(err)
		}
	}
}

// The bank is down. Customers are answered at once, and when it is back their
// payments are made, each once.
func Example() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.close()
	q := s.queue(breaker.QueueOptions{})

	r, err := q.Submit(ctx, breaker.Request{Key: "charge-1", Body: []byte("5.00 EUR")})
	must(err)
	fmt.Printf("%s: %s\n", r.Status, r.Answer)

	s.bank.set(down, nil)
	for i := 2; i <= 20; i++ {
		r, err = q.Submit(ctx, breaker.Request{Key: fmt.Sprint("charge-", i), Body: []byte("5.00 EUR")})
		must(err)
	}
	fmt.Printf("%s: %v; the bank was called %v\n", r.Status, r.Why, map[bool]string{true: "a few times", false: "each time"}[s.bank.called() < 15])

	s.bank.set(nil, nil)
	work(ctx, q, settled)
	var n int
	must(s.DB.QueryRow(ctx, "SELECT count(*) FROM orders WHERE status = 'paid'").Scan(&n))
	fmt.Println(n, "orders are paid by", len(s.bank.charged()), "charges")
	// Output:
	// done: charged 5.00 EUR
	// queued: breaker: the circuit is open; the bank was called a few times
	// 20 orders are paid by 20 charges
}

// Closed, open, half-open, closed.
func ExampleBreaker() {
	ctx := context.Background()
	b, err := breaker.New(breaker.Options{
		Name:          "bank",
		ResetTimeout:  20 * time.Millisecond,
		Logger:        slog.New(slog.DiscardHandler),
		OnStateChange: func(e breaker.Event) { fmt.Println(e) },
	})
	must(err)
	fails := func(context.Context) error { return errors.New("503") }
	works := func(context.Context) error { return nil }

	for range 6 {
		err = b.Do(ctx, fails)
	}
	fmt.Println(err)
	for b.State() == breaker.Open {
		time.Sleep(time.Millisecond)
	}
	fmt.Println(b.Do(ctx, works))
	// Output:
	// bank: closed → open (5 of 5 failed)
	// breaker: the circuit is open
	// bank: open → half-open
	// bank: half-open → closed (0 of 1 failed)
	// <nil>
}

// Retry outside, breaker, deadline inside. When the circuit opens there is nothing
// more to try.
func ExampleBreaker_Do() {
	ctx := context.Background()
	b, err := breaker.New(breaker.Options{Timeout: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	must(err)
	calls := 0
	for try := range 10 {
		err = b.Do(ctx, func(ctx context.Context) error {
			calls++
			<-ctx.Done() // the bank hangs
			return ctx.Err()
		})
		if err == nil || errors.Is(err, breaker.ErrOpen) {
			break
		}
		if try == 0 {
			fmt.Println(err)
		}
	}
	fmt.Println(err, "after", calls, "calls")
	// Output:
	// breaker: the call took too long: context deadline exceeded (context deadline exceeded)
	// breaker: the circuit is open after 5 calls
}

// A result is handed over by returning it.
func ExampleGet() {
	b, err := breaker.New(breaker.Options{})
	must(err)
	rate, err := breaker.Get(context.Background(), b, func(context.Context) (float64, error) { return 1.17, nil })
	fmt.Println(rate, err)
	// Output:
	// 1.17 <nil>
}

// A bank that declines a card works.
func ExamplePermanent() {
	b, err := breaker.New(breaker.Options{})
	must(err)
	for range 10 {
		err = b.Do(context.Background(), func(context.Context) error {
			return breaker.Permanent(errors.New("the card has expired"))
		})
	}
	fmt.Println(err)
	fmt.Println(b.State(), b.Counts().Successes)
	// Output:
	// the card has expired
	// closed 10
}

// A callback may ask the breaker, since no lock is held, and is told the counts that
// have led to the transition.
func ExampleOptions_onStateChange() {
	ctx := context.Background()
	var b *breaker.Breaker
	b, err := breaker.New(breaker.Options{
		ErrorThresholdPercentage: 30,
		VolumeThreshold:          10,
		Logger:                   slog.New(slog.DiscardHandler),
		OnStateChange: func(e breaker.Event) {
			fmt.Printf("%.0f %% of %d calls failed; it is %v\n", e.Counts.FailureRate(), e.Counts.Requests, b.State())
		},
	})
	must(err)
	for i := range 10 {
		_ = b.Do(ctx, func(context.Context) error {
			if i%3 == 0 {
				return errors.New("503")
			}
			return nil
		})
	}
	// Output:
	// 40 % of 10 calls failed; it is open
}

// A dependency that is slow gets two calls at a time and no more, and the breaker does
// not count what finds no place.
func ExampleBulkhead() {
	ctx := context.Background()
	bulkhead, err := breaker.NewBulkhead(breaker.BulkheadOptions{MaxConcurrent: 2})
	must(err)
	b, err := breaker.New(breaker.Options{Bulkhead: bulkhead})
	must(err)

	began, goOn, ended := make(chan bool), make(chan bool), make(chan error)
	for range 2 {
		go func() {
			ended <- b.Do(ctx, func(context.Context) error { began <- true; <-goOn; return nil })
		}()
		<-began
	}
	fmt.Println(b.Do(ctx, func(context.Context) error { return nil }))
	close(goOn)
	fmt.Println(<-ended, <-ended)
	fmt.Println(b.Counts().Successes, "successes,", b.Counts().Failures, "failures")
	// Output:
	// breaker: the bulkhead is full
	// <nil> <nil>
	// 2 successes, 0 failures
}

// The order and its payment are stored by one transaction, and its outcome is
// announced over RabbitMQ by the transaction that marks it as made.
func ExampleQueue_Enqueue() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.close()
	must(outbox.Migrate(ctx, s.DB))
	ch, err := s.Conn.Channel()
	must(err)
	must(ch.ExchangeDeclare("events", "topic", true, false, false, false, nil))
	must(ch.QueueDeclare("warehouse", true, false, false, false, nil))
	must(ch.QueueBind("warehouse", "order.*", "events", false, nil))
	events, err := ch.Consume("warehouse", "", true, false, false, false, nil)
	must(err)
	relay, err := outbox.NewRelay(s.DB, outbox.Options{
		Dial:   func(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, s.AMQPURL) },
		Logger: slog.New(slog.DiscardHandler),
	})
	must(err)
	relayCtx, stop := context.WithCancel(ctx)
	relayed := make(chan error, 1)
	go func() { relayed <- relay.Run(relayCtx) }()

	q := s.queue(breaker.QueueOptions{
		Done: func(ctx context.Context, tx pgx.Tx, a breaker.Attempt, answer []byte) error {
			if err := paid(ctx, tx, a, answer); err != nil {
				return err
			}
			_, err := outbox.Enqueue(ctx, tx, outbox.Event{AggregateID: a.Key, Type: "order.paid", Payload: map[string]string{"answer": string(answer)}})
			return err
		},
	})
	err = pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO orders VALUES ('order-7')"); err != nil {
			return err
		}
		return q.Enqueue(ctx, tx, breaker.Request{Key: "order-7", Body: []byte("5.00 EUR")})
	})
	must(err)

	s.bank.set(nil, func(http.ResponseWriter, *http.Request, string) bool {
		panic(http.ErrAbortHandler) // it charges, and its answer gets lost
	})
	r, err := q.Try(ctx, "order-7")
	fmt.Println(r.Status, err)
	s.bank.set(nil, nil)
	work(ctx, q, settled)

	d := <-events
	fmt.Printf("%s %s\n", d.RoutingKey, d.Body)
	fmt.Println(len(s.bank.charged()), "charge by several calls:", s.bank.called() > 1)
	stop()
	must(<-relayed)
	// Output:
	// queued <nil>
	// order.paid {"answer": "charged 5.00 EUR"}
	// 1 charge by several calls: true
}

// What no attempt can mend is parked, with the reason. When the cause is mended, Resume
// queues it again, with its old key.
func ExampleQueue_Resume() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.close()
	s.bank.set(func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}, nil)
	q := s.queue(breaker.QueueOptions{})

	_, err := q.Submit(ctx, breaker.Request{Key: "charge-1", Body: []byte("5.00 EUR")})
	fmt.Println(errors.Is(err, breaker.ErrParked))
	parked, err := q.ListParked(ctx, 10)
	must(err)
	fmt.Printf("%s, %s, after %d attempt: %s\n", parked[0].Key, parked[0].Body, parked[0].Attempts, parked[0].Reason)

	s.bank.set(nil, nil)
	fmt.Println(q.Resume(ctx))
	work(ctx, q, settled)
	fmt.Println(s.bank.charged())
	// Output:
	// true
	// charge-1, 5.00 EUR, after 1 attempt: the bank says 401 Unauthorized
	// 1 <nil>
	// map[charge-1:5.00 EUR]
}

// A customer who presses twice, and a service that does not know whether it had
// submitted, do so again with the same key.
func ExampleQueue_Submit() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.close()
	q := s.queue(breaker.QueueOptions{})
	for range 3 {
		r, err := q.Submit(ctx, breaker.Request{Key: "charge-1", Body: []byte("5.00 EUR")})
		fmt.Printf("%s %s %v\n", r.Status, r.Answer, err)
	}
	_, err := q.Submit(ctx, breaker.Request{Key: "charge-1", Body: []byte("500.00 EUR")})
	fmt.Println(err)
	fmt.Println(s.bank.called(), "call")
	// Output:
	// done charged 5.00 EUR <nil>
	// done charged 5.00 EUR <nil>
	// done charged 5.00 EUR <nil>
	// breaker: the idempotency key belongs to another request
	// 1 call
}

// Stats are the figures to watch.
func ExampleQueue_Stats() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.close()
	q := s.queue(breaker.QueueOptions{})
	must(q.Submit(ctx, breaker.Request{Key: "charge-1", Body: []byte("5.00 EUR")}))
	s.bank.set(down, nil)
	must(q.Submit(ctx, breaker.Request{Key: "charge-2", Body: []byte("5.00 EUR")}))

	stats, err := q.Stats(ctx)
	must(err)
	fmt.Println("queued", stats.Queued, "late", stats.Oldest > 0, "parked", stats.Parked, "attempts", stats.Attempts, "done", stats.Done, stats.State)
	// Output:
	// queued 1 late true parked 0 attempts 2 done 1 closed
}
