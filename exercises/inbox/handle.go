package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/exercise"
)

// Payment is a payment that came as a message.
type Payment struct {
	MessageID string `json:"-"`
	Account   string `json:"account"`
	Cents     int64  `json:"cents"`
}

// Handle is the starter answer of inbox/handle.
//
// Handle books the payment, once, however often its message is delivered: it
// raises the account's balance_cents by its cents and adds one row to ledger
// (account_id and cents), both in one transaction: balance and ledger agree at any
// time.
//
// A message may be delivered again after a crash or a lost connection. Whoever
// sent it may have sent it twice, with the same MessageID. Two processes call
// Handle, each for up to four messages at a time, so it may be called for the same
// message twice at the same moment, or once more a year later. Two payments that
// differ by their MessageID only are two payments; it is any text, and "a" and "A"
// differ. Every payment has a MessageID and an account that exists.
//
// When Handle returns nil, the message is acknowledged and never comes back. When
// it returns an error, the message is delivered again a little later. After a crash
// it has to be booked within two seconds of being delivered again. The table inbox
// is there to remember messages; your consumer's name in it is payments.
func Handle(ctx context.Context, db *pgxpool.Pool, p Payment) error {
	return exercise.ErrNotImplemented // your code
}

// CheckHandle judges an answer to inbox/handle and fails t if it does not pass.
func CheckHandle(t testing.TB, handle func(context.Context, *pgxpool.Pool, Payment) error) {
	t.Helper()
	exercise.Check(t, "inbox/handle", func(ctx context.Context, p *exercise.Process, _ json.RawMessage) error {
		db, err := p.Postgres(ctx)
		if err != nil {
			return err
		}
		conn, err := p.Broker()
		if err != nil {
			return err
		}
		return consumeEach(ctx, conn, func(d amqp.Delivery) error {
			m := Payment{MessageID: d.MessageId}
			if err := json.Unmarshal(d.Body, &m); err != nil {
				return fmt.Errorf("inbox: read the payment: %w", err)
			}
			return handle(ctx, db, m)
		})
	})
}

// inHand is how many messages a process handles at a time.
const inHand = 4

// consumeEach calls handle for each delivery of the queue payments, inHand at a
// time. It acknowledges a delivery when handle returns nil, and has it delivered
// again when it returns an error.
func consumeEach(ctx context.Context, conn *amqp.Connection, handle func(amqp.Delivery) error) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("inbox: open a channel: %w", err)
	}
	if err := ch.Qos(inHand, 0, false); err != nil {
		return fmt.Errorf("inbox: set the prefetch: %w", err)
	}
	deliveries, err := ch.Consume("payments", "", false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("inbox: consume: %w", err)
	}
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case d, open := <-deliveries:
			if !open {
				return errors.New("inbox: the channel has closed")
			}
			go func() {
				if err := settle(d, handle(d)); err != nil {
					fail(err)
				}
			}()
		}
	}
}

// settle tells the broker what became of a delivery.
func settle(d amqp.Delivery, err error) error {
	switch {
	case errors.Is(err, exercise.ErrNotImplemented):
		return err
	case err != nil:
		fmt.Fprintln(os.Stderr, "the answer returned:", err)
		time.Sleep(20 * time.Millisecond) // no hurry to see the same error again
		return d.Nack(false, true)
	}
	return d.Ack(false)
}
