// Mutant: takes the process and the delivery tag for the key: each delivery of a message has another.
// Breaks: effect-once
// Shown by: none

package deliverytag

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// workers is how many payments are under way at a time: as many as the pool has
// connections.
const workers = 4

// Consume books each payment of the queue once.
func Consume(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	// No more than the workers can begin with: what waits here, waits in vain.
	if err := ch.Qos(workers, 0, false); err != nil {
		return err
	}
	payments, err := ch.Consume("payments", "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error { return work(gctx, db, payments) })
	}
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

func work(ctx context.Context, db *pgxpool.Pool, payments <-chan amqp.Delivery) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, open := <-payments:
			if !open {
				return errors.New("the channel has closed")
			}
			err := book(ctx, db, d)
			switch {
			case err == nil:
				err = d.Ack(false) // only now: until then the broker must keep it
			case errors.Is(err, errNever):
				err = d.Reject(false)
			}
			if err != nil { // all that is in hand comes again
				return err
			}
		}
	}
}

// errNever tells that no further try will help.
var errNever = errors.New("this message can never be booked")

// book remembers the message and moves its money, both or neither.
func book(ctx context.Context, db *pgxpool.Pool, d amqp.Delivery) error {
	var p struct {
		Account string
		Cents   int64
	}
	if d.MessageId == "" || json.Unmarshal(d.Body, &p) != nil {
		return errNever
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		// First, because it also waits: when another transaction is handling the same
		// message, this one learns here how that ended.
		tag, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1)
			ON CONFLICT DO NOTHING`, fmt.Sprint(os.Getpid(), "-", d.DeliveryTag))
		if err != nil || tag.RowsAffected() == 0 { // it is known: done
			return err
		}
		tag, err = tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, p.Account, p.Cents)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return errNever // there is no such account; what was remembered is rolled back
		}
		_, err = tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents)
		return err
	})
}
