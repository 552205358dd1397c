// Package onestatement answers inbox/consume with one statement for each
// payment.
package onestatement

import (
	"context"
	"encoding/json"
	"errors"

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

// book remembers the message and moves its money, in one statement.
func book(ctx context.Context, db *pgxpool.Pool, d amqp.Delivery) error {
	var p struct {
		Account string
		Cents   int64
	}
	if d.MessageId == "" || json.Unmarshal(d.Body, &p) != nil {
		return errNever
	}
	var exists bool
	err := db.QueryRow(ctx, `WITH account AS (
			SELECT id FROM accounts WHERE id = $2
		), fresh AS (
			INSERT INTO inbox (consumer, message_id) SELECT 'payments', $1 FROM account ON CONFLICT DO NOTHING RETURNING 1
		), moved AS (
			UPDATE accounts SET balance_cents = balance_cents + $3 WHERE id = $2 AND EXISTS (SELECT FROM fresh)
		), written AS (
			INSERT INTO ledger (account_id, cents) SELECT $2, $3 FROM fresh
		)
		SELECT EXISTS (SELECT FROM account)`, d.MessageId, p.Account, p.Cents).Scan(&exists)
	if err == nil && !exists {
		return errNever
	}
	return err
}
