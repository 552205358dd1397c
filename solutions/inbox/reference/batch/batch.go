// Package batch is the reference answer to inbox/batch.
package batch

import (
	"context"
	"encoding/json"
	"errors"
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
	unknown, err := bookAll(ctx, db, payments)
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

// bookAll books those payments that are not known, in one transaction, and returns
// the messages whose accounts do not exist.
func bookAll(ctx context.Context, db *pgxpool.Pool, payments []payment) (unknown []string, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var accounts, ids []string
		for _, p := range payments {
			accounts = append(accounts, p.Account)
		}
		rows, _ := tx.Query(ctx, `SELECT id FROM accounts WHERE id = ANY ($1)`, accounts)
		exist, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		unknown = nil
		for _, p := range payments {
			if slices.Contains(exist, p.Account) {
				ids = append(ids, p.id)
			} else {
				unknown = append(unknown, p.id)
			}
		}
		// What this returns is new: also of two messages of this batch that have the
		// same id, only one.
		rows, _ = tx.Query(ctx, `INSERT INTO inbox (consumer, message_id) SELECT 'payments', unnest($1::text[])
			ON CONFLICT DO NOTHING RETURNING message_id`, ids)
		fresh, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		var to []string
		var cents []int64
		for _, p := range payments {
			if i := slices.Index(fresh, p.id); i >= 0 {
				fresh = slices.Delete(fresh, i, i+1) // its twin is not
				to, cents = append(to, p.Account), append(cents, p.Cents)
			}
		}
		if _, err := tx.Exec(ctx, `UPDATE accounts a SET balance_cents = balance_cents + s.cents
			FROM (SELECT p.account, sum(p.cents)::bigint AS cents FROM unnest($1::text[], $2::bigint[]) AS p (account, cents) GROUP BY 1) AS s
			WHERE a.id = s.account`, to, cents); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO ledger (account_id, cents)
			SELECT account, cents FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS p (account, cents, n) ORDER BY n`, to, cents)
		return err
	})
	return unknown, err
}
