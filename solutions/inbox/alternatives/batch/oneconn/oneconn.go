// Package oneconn answers inbox/batch on one connection of its own, with
// the statements of a batch sent in one go.
package oneconn

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	most  = 100                   // payments in a transaction
	quiet = 10 * time.Millisecond // for so long a batch waits for its next message
)

// Batch books the payments that wait together, once and in order.
func Batch(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	if err := ch.Qos(2*most, 0, false); err != nil { // one batch under way, the next one at hand
		return err
	}
	deliveries, err := ch.Consume("payments", "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for {
		batch, err := gather(ctx, deliveries)
		if err == nil && len(batch) > 0 {
			err = handle(ctx, db, batch)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // all that is in hand comes again, in order
			return err
		}
	}
}

// gather waits for a message, and then takes those that are right behind it.
func gather(ctx context.Context, deliveries <-chan amqp.Delivery) (batch []amqp.Delivery, err error) {
	var late <-chan time.Time // nil while there is none: then it waits for ever
	for len(batch) < most {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-late:
			return batch, nil
		case d, open := <-deliveries:
			if !open {
				return nil, errors.New("the channel has closed")
			}
			batch, late = append(batch, d), time.After(quiet)
		}
	}
	return batch, nil
}

type payment struct {
	id      string
	Account string
	Cents   int64
}

// handle books a batch and settles its deliveries.
func handle(ctx context.Context, db *pgxpool.Pool, batch []amqp.Delivery) error {
	var payments []payment
	var poison []amqp.Delivery
	for _, d := range batch {
		p := payment{id: d.MessageId}
		if p.id == "" || json.Unmarshal(d.Body, &p) != nil {
			poison = append(poison, d)
			continue
		}
		payments = append(payments, p)
	}
	unknown, err := book(ctx, db, payments)
	if err != nil {
		return err
	}
	for _, d := range batch {
		if slices.Contains(unknown, d.MessageId) {
			poison = append(poison, d)
		}
	}
	for _, d := range poison {
		if err := d.Reject(false); err != nil {
			return err
		}
	}
	// The others are committed, all of them: one ack is enough, unless the last one
	// was rejected.
	for _, d := range slices.Backward(batch) {
		if !slices.ContainsFunc(poison, func(p amqp.Delivery) bool { return p.DeliveryTag == d.DeliveryTag }) {
			return d.Ack(true)
		}
	}
	return nil
}

// book books those payments that are not known, in one transaction, and returns
// the messages whose accounts do not exist.
func book(ctx context.Context, db *pgxpool.Pool, payments []payment) (unknown []string, err error) {
	if conn == nil || conn.IsClosed() {
		if conn, err = pgx.Connect(ctx, os.Getenv("DATABASE_URL")); err != nil {
			return nil, err
		}
	}
	const one = `WITH account AS (
			SELECT id FROM accounts WHERE id = $2
		), fresh AS (
			INSERT INTO inbox (consumer, message_id) SELECT 'payments', $1 FROM account ON CONFLICT DO NOTHING RETURNING 1
		), moved AS (
			UPDATE accounts SET balance_cents = balance_cents + $3 WHERE id = $2 AND EXISTS (SELECT FROM fresh)
		), written AS (
			INSERT INTO ledger (account_id, cents) SELECT $2, $3 FROM fresh
		)
		SELECT EXISTS (SELECT FROM account)`
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		unknown = nil
		var all pgx.Batch
		for _, p := range payments {
			all.Queue(one, p.id, p.Account, p.Cents).QueryRow(func(row pgx.Row) error {
				var exists bool
				err := row.Scan(&exists)
				if err == nil && !exists {
					unknown = append(unknown, p.id)
				}
				return err
			})
		}
		return tx.SendBatch(ctx, &all).Close()
	})
	return unknown, err
}

// conn is used by one goroutine, and lives as long as the process.
var conn *pgx.Conn
