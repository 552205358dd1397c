package inbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/inbox"
	"crashcourse/pkg/servertest"
)

// BenchmarkConsumer handles messages whose effect is one row each.
func BenchmarkConsumer(b *testing.B) {
	for _, batch := range []int{1, 10, 100} {
		b.Run(fmt.Sprint("batch", batch), func(b *testing.B) {
			s := servertest.New(b)
			ctx, stop := context.WithCancel(b.Context())
			defer stop()
			if _, err := s.DB.Exec(ctx, "CREATE TABLE effects (id text NOT NULL)"); err != nil {
				b.Fatal(err)
			}
			ch, err := s.Conn.Channel()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := ch.QueueDeclare("work", true, false, false, false, nil); err != nil {
				b.Fatal(err)
			}
			if err := ch.Confirm(false); err != nil {
				b.Fatal(err)
			}
			for i := range b.N {
				confirm, err := ch.PublishWithDeferredConfirm("", "work", false, false, amqp.Publishing{MessageId: fmt.Sprint(i), DeliveryMode: amqp.Persistent, Body: make([]byte, 256)})
				if err != nil {
					b.Fatal(err)
				}
				if i == b.N-1 {
					confirm.Wait()
				}
			}
			done := make(chan struct{}, b.N)
			c, err := inbox.New(s.DB, inbox.Options{
				Consumer: "bench", Queue: "work", Batch: batch, Logger: slog.New(slog.DiscardHandler),
				Dial:  func(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, s.AMQPURL) },
				Hooks: inbox.Hooks{Handled: func(inbox.Delivery) { done <- struct{}{} }},
				Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
					_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1)", d.ID)
					return err
				},
			})
			if err != nil {
				b.Fatal(err)
			}
			if err := inbox.Migrate(ctx, s.DB); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			ended := make(chan error, 1)
			go func() { ended <- c.Run(ctx) }()
			for range b.N {
				<-done
			}
			b.StopTimer()
			stop()
			if err := <-ended; err != nil {
				b.Error(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
