package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	wm "github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/inbox"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/state"
)

const queue = "payments"

// effectSQL is what a payment does: a row, with the time at which it came about.
const effectSQL = "INSERT INTO effects (message_id, done_at) VALUES ($1, clock_timestamp())"

// consumer is one of those that are compared.
type consumer struct {
	name   string
	remark string
	slow   bool // so slow that a tenth of the backlog will do
	run    func(ctx context.Context, db *pgxpool.Pool, amqpURL string) error
}

var consumers = []consumer{
	{name: "inbox, one by one", slow: true, run: ours(inbox.Options{Concurrency: 1})},
	{name: "inbox, 8 at once", slow: true, run: ours(inbox.Options{Concurrency: 8})},
	{name: "inbox, batches of 100", run: ours(inbox.Options{Concurrency: 2, Batch: 100})},
	{name: "inbox, batches of 100, one statement", run: ours(inbox.Options{Concurrency: 2, Batch: 100, HandleBatch: atOnce})},
	{name: "inbox, batches of 500, one statement", run: ours(inbox.Options{Concurrency: 2, Batch: 500, HandleBatch: atOnce})},
	{name: "Watermill, deduplicator", remark: "by message ID, in memory, for a minute", slow: true, run: watermill},
	{name: "by hand, check then insert", remark: "wrong", slow: true, run: byHand(checkThenInsert)},
	{name: "by hand, insert on conflict", slow: true, run: byHand(insertOnConflict)},
}

// ours is package inbox.
func ours(o inbox.Options) func(context.Context, *pgxpool.Pool, string) error {
	return func(ctx context.Context, db *pgxpool.Pool, amqpURL string) error {
		o.Consumer, o.Queue = "bench", queue
		o.Dial = func(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, amqpURL) }
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
		if o.HandleBatch == nil {
			o.Handle = func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
				_, err := tx.Exec(ctx, effectSQL, d.ID)
				return err
			}
		}
		c, err := inbox.New(db, o)
		if err != nil {
			return err
		}
		return c.Run(ctx)
	}
}

func atOnce(ctx context.Context, tx pgx.Tx, batch []inbox.Delivery) error {
	ids := make([]string, len(batch))
	for i, d := range batch {
		ids[i] = d.ID
	}
	_, err := tx.Exec(ctx, "INSERT INTO effects (message_id, done_at) SELECT unnest($1::text[]), clock_timestamp()", ids)
	return err
}

// watermill is its router as its documentation shows, with the message ID as key
// and eight messages at a time.
func watermill(ctx context.Context, db *pgxpool.Pool, amqpURL string) error {
	config := wamqp.NewDurableQueueConfig(amqpURL)
	config.Consume.Qos.PrefetchCount = 8
	config.Marshaler = wamqp.DefaultMarshaler{NotPersistentDeliveryMode: false}
	subscriber, err := wamqp.NewSubscriber(config, wm.NopLogger{})
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{}, wm.NopLogger{})
	if err != nil {
		return err
	}
	seen, err := middleware.NewMapExpiringKeyRepository(time.Minute)
	if err != nil {
		return err
	}
	router.AddMiddleware((&middleware.Deduplicator{
		KeyFactory: func(m *message.Message) (string, error) { return m.UUID, nil },
		Repository: seen,
		Timeout:    time.Minute,
	}).Middleware)
	router.AddNoPublisherHandler("payments", queue, subscriber, func(m *message.Message) error {
		return pgx.BeginFunc(m.Context(), db, func(tx pgx.Tx) error {
			_, err := tx.Exec(m.Context(), effectSQL, m.UUID)
			return err
		})
	})
	return router.Run(ctx)
}

// byHand is a consumer with eight goroutines that acks when handle has returned.
func byHand(handle func(context.Context, *pgxpool.Pool, string) error) func(context.Context, *pgxpool.Pool, string) error {
	return func(ctx context.Context, db *pgxpool.Pool, amqpURL string) error {
		conn, err := broker.Dial(ctx, amqpURL)
		if err != nil {
			return err
		}
		defer conn.Close()
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		if err := ch.Qos(16, 0, false); err != nil {
			return err
		}
		deliveries, err := ch.ConsumeWithContext(ctx, queue, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for d := range deliveries {
					if handle(ctx, db, d.MessageId) == nil {
						_ = d.Ack(false)
					} else {
						_ = d.Nack(false, true)
					}
				}
			})
		}
		all.Wait()
		return nil
	}
}

// checkThenInsert is what is found in many a tutorial.
func checkThenInsert(ctx context.Context, db *pgxpool.Pool, id string) error {
	var known bool
	if err := db.QueryRow(ctx, "SELECT EXISTS (SELECT FROM seen WHERE message_id = $1)", id).Scan(&known); err != nil || known {
		return err
	}
	if _, err := db.Exec(ctx, effectSQL, id); err != nil {
		return err
	}
	_, err := db.Exec(ctx, "INSERT INTO seen VALUES ($1) ON CONFLICT DO NOTHING", id)
	return err
}

func insertOnConflict(ctx context.Context, db *pgxpool.Pool, id string) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "INSERT INTO seen VALUES ($1) ON CONFLICT DO NOTHING", id)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, effectSQL, id)
		return err
	})
}

// roleEnv names the consumer that a process of this program is.
const roleEnv = "BENCH_CONSUMER"

// play is what such a process does, until it is told to stop.
func play(name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	db, err := postgres.Open(ctx, os.Getenv(state.PostgresEnv), func(c *pgxpool.Config) { c.MaxConns = 10 })
	if err != nil {
		return err
	}
	defer db.Close()
	for _, c := range consumers {
		if c.name == name {
			return c.run(ctx, db, os.Getenv(state.AMQPEnv))
		}
	}
	return fmt.Errorf("there is no consumer %q", name)
}
