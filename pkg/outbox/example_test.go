package outbox_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/outbox"
	"crashcourse/pkg/servertest"
)

// shop is what the examples work with: a database with an outbox, and a queue
// that gets all orders' events.
type shop struct {
	*servertest.Servers
	events <-chan amqp.Delivery
}

func openShop(ctx context.Context) shop {
	slog.SetLogLoggerLevel(slog.LevelError)
	s := shop{Servers: servertest.Must()}
	must(outbox.Migrate(ctx, s.DB))
	must(execute(ctx, s, "CREATE TABLE orders (id text PRIMARY KEY, cents bigint NOT NULL)"))
	ch, err := s.Conn.Channel()
	must(err)
	must(ch.ExchangeDeclare("events", "topic", true, false, false, false, nil))
	_, err = ch.QueueDeclare("warehouse", true, false, false, false, nil)
	must(err)
	must(ch.QueueBind("warehouse", "order.*", "events", false, nil))
	s.events, err = ch.Consume("warehouse", "", true, false, false, false, nil)
	must(err)
	return s
}

// place stores an order and its event, atomically.
func (s shop) place(ctx context.Context, id string, cents int64) {
	must(pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO orders VALUES ($1, $2)", id, cents); err != nil {
			return err
		}
		_, err := outbox.Enqueue(ctx, tx, outbox.Event{AggregateID: id, Type: "order.placed", Payload: map[string]any{"id": id, "cents": cents}})
		return err
	}))
}

// start runs a relay, and returns what stops it and waits for it.
func (s shop) start(ctx context.Context, relay *outbox.Relay) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	return func() {
		cancel()
		must(<-ended)
	}
}

func (s shop) dial(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, s.AMQPURL) }

func execute(ctx context.Context, s shop, sql string) error {
	_, err := s.DB.Exec(ctx, sql)
	return err
}

func must(args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok && err != nil {
			log.Fatal(err)
		}
	}
}

// An order and its event are stored in one transaction. The relay publishes what
// was committed, and only that.
func Example() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()

	relay, err := outbox.NewRelay(s.DB, outbox.Options{Dial: s.dial})
	must(err)
	stop := s.start(ctx, relay)

	s.place(ctx, "order-1", 4200)

	// A transaction that fails leaves neither an order nor an event.
	tx, err := s.DB.Begin(ctx)
	must(err)
	_, err = outbox.Enqueue(ctx, tx, outbox.Event{AggregateID: "order-2", Type: "order.placed"})
	must(err)
	must(tx.Rollback(ctx))

	s.place(ctx, "order-3", 100)

	for range 2 {
		m := <-s.events
		fmt.Println(m.RoutingKey, m.Headers[outbox.AggregateHeader], string(m.Body))
	}
	stop()
	// Unordered output:
	// order.placed order-1 {"id": "order-1", "cents": 4200}
	// order.placed order-3 {"id": "order-3", "cents": 100}
}

// Several events are stored in one round trip, and published in this order.
func ExampleEnqueue() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()

	err := pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		ids, err := outbox.Enqueue(ctx, tx,
			outbox.Event{AggregateID: "order-1", Type: "order.placed"},
			outbox.Event{AggregateID: "order-1", Type: "order.paid", Payload: map[string]int{"cents": 4200}},
		)
		fmt.Println(len(ids), "events")
		return err
	})
	must(err)

	relay, err := outbox.NewRelay(s.DB, outbox.Options{Dial: s.dial})
	must(err)
	stop := s.start(ctx, relay)
	defer stop()
	for range 2 {
		m := <-s.events
		fmt.Println(m.RoutingKey, string(m.Body))
	}
	// Output:
	// 2 events
	// order.placed null
	// order.paid {"cents": 4200}
}

// With Notify the database wakes the relay. It would otherwise look once an hour
// here.
func ExampleOptions_notify() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()

	relay, err := outbox.NewRelay(s.DB, outbox.Options{Dial: s.dial, Source: outbox.Notify, PollInterval: time.Hour})
	must(err)
	stop := s.start(ctx, relay)
	defer stop()

	s.place(ctx, "order-1", 4200)
	fmt.Println((<-s.events).RoutingKey)
	s.place(ctx, "order-2", 4200)
	fmt.Println((<-s.events).RoutingKey)
	// Output:
	// order.placed
	// order.placed
}

// CDC reads the write-ahead log. What is committed while no relay runs is
// published when one runs again.
func ExampleOptions_changeDataCapture() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()

	relay, err := outbox.NewRelay(s.DB, outbox.Options{Dial: s.dial, Source: outbox.CDC, Slot: s.Name})
	must(err)
	stop := s.start(ctx, relay)
	s.place(ctx, "order-1", 4200)
	fmt.Println((<-s.events).Headers[outbox.AggregateHeader])
	stop()

	s.place(ctx, "order-2", 4200)
	stop = s.start(ctx, relay)
	defer stop()
	fmt.Println((<-s.events).Headers[outbox.AggregateHeader])
	// Output:
	// order-1
	// order-2
}

// An event that no queue is bound for is not lost. Its aggregate is held, others
// go on, and it is published once a queue is bound.
func ExampleHooks() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	ch, err := s.Conn.Channel()
	must(err)

	refused := make(chan string, 1000)
	relay, err := outbox.NewRelay(s.DB, outbox.Options{
		Dial:     s.dial,
		MaxRetry: time.Second,
		Logger:   slog.New(slog.DiscardHandler),
		Hooks: outbox.Hooks{Refused: func(m outbox.Message, r outbox.Refusal) {
			refused <- m.Type + " " + r.Reason
		}},
	})
	must(err)
	stop := s.start(ctx, relay)
	defer stop()

	must(pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		_, err := outbox.Enqueue(ctx, tx,
			outbox.Event{AggregateID: "parcel-1", Type: "parcel.sent"},
			outbox.Event{AggregateID: "parcel-1", Type: "order.closed"})
		return err
	}))
	fmt.Println(<-refused)
	s.place(ctx, "order-2", 4200)
	fmt.Println((<-s.events).RoutingKey, "goes on")

	must(ch.QueueBind("warehouse", "parcel.*", "events", false, nil))
	fmt.Println((<-s.events).RoutingKey)
	fmt.Println((<-s.events).RoutingKey)
	// Output:
	// parcel.sent returned: 312 NO_ROUTE
	// order.placed goes on
	// parcel.sent
	// order.closed
}

// Stats are the figures to watch.
func ExampleRelay_Stats() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	relay, err := outbox.NewRelay(s.DB, outbox.Options{Dial: s.dial})
	must(err)

	s.place(ctx, "order-1", 4200)
	s.place(ctx, "order-2", 4200)
	stats, err := relay.Stats(ctx)
	must(err)
	fmt.Println("backlog", stats.Backlog, "late", stats.Lag > 0)

	stop := s.start(ctx, relay)
	<-s.events
	<-s.events
	stop() // waits until the rows are marked
	stats, err = relay.Stats(ctx)
	must(err)
	fmt.Println("backlog", stats.Backlog, "late", stats.Lag > 0, "published", stats.Published)
	// Output:
	// backlog 2 late true
	// backlog 0 late false published 2
}

// A relay deletes old rows by itself. Clean does so when you say.
func ExampleClean() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	relay, err := outbox.NewRelay(s.DB, outbox.Options{Dial: s.dial, Keep: -1}) // keeps them for ever
	must(err)

	s.place(ctx, "order-1", 4200)
	stop := s.start(ctx, relay)
	<-s.events
	stop()

	n, err := outbox.Clean(ctx, s.DB, time.Hour)
	must(err)
	fmt.Println(n, "rows older than an hour")
	n, err = outbox.Clean(ctx, s.DB, 0)
	must(err)
	fmt.Println(n, "row older than this moment")
	// Output:
	// 0 rows older than an hour
	// 1 row older than this moment
}

// Prepare sets what else the messages shall have.
func ExampleOptions_prepare() {
	ctx := context.Background()
	s := openShop(ctx)
	defer s.Close()
	relay, err := outbox.NewRelay(s.DB, outbox.Options{
		Dial:   s.dial,
		Delete: true, // no row is kept
		Prepare: func(m outbox.Message, p *amqp.Publishing) {
			p.AppId = "shop"
			p.Headers["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		},
	})
	must(err)
	stop := s.start(ctx, relay)
	defer stop()
	s.place(ctx, "order-1", 4200)
	m := <-s.events
	fmt.Println(m.AppId, m.Headers["traceparent"])
	// Output:
	// shop 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
}
