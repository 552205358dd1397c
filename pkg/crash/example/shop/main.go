// Shop is a small HTTP service to be crashed: the example of package crash. It
// knows nothing of who crashes it.
//
// POST /orders stores an order and announces it as order.placed. A client may send
// the same order again when it does not know what became of it.
//
// By default the shop stores first and announces then, and each step is done well:
// it waits for the database's answer, for the broker's confirm, and answers only
// then. With -outbox it does both in one transaction, and pkg/outbox publishes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/postgres"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "listen on this `address`")
	outbox := flag.Bool("outbox", false, "announce orders through an outbox")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *outbox); err != nil {
		log.Fatal(err) // whoever supervises the shop starts it again
	}
}

func run(ctx context.Context, addr string, withOutbox bool) error {
	pool, err := postgres.Open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()

	g, ctx := errgroup.WithContext(ctx)
	var place placeFunc
	if withOutbox {
		place, err = placeWithOutbox(ctx, g, pool)
	} else {
		place, err = placeDirectly(ctx, g, pool)
	}
	if err != nil {
		return err
	}

	server := &http.Server{Addr: addr, Handler: handler(place), ReadHeaderTimeout: 5 * time.Second}
	g.Go(func() error {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return server.Shutdown(stopping)
	})
	return g.Wait()
}

// exchange is what the shop announces its orders to.
const exchange = "shop"

// dial connects to the broker and makes sure that the exchange is there.
func dial(ctx context.Context) (*amqp.Connection, error) {
	conn, err := broker.Dial(ctx, os.Getenv("AMQP_URL"))
	if err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err == nil {
		err = ch.ExchangeDeclare(exchange, amqp.ExchangeTopic, true, false, false, false, nil)
	}
	if err == nil {
		err = ch.Close()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("declare exchange %s: %w", exchange, err)
	}
	return conn, nil
}
