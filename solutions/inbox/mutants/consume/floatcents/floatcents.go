// Mutant: reads cents as float64.
// Breaks: effect-once
// Shown by: none

package floatcents

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const hands = 8

var errPoison = errors.New("can never be booked")

func Consume(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Qos(hands, 0, false); err != nil {
		return err
	}
	in, err := ch.Consume("payments", "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	ended := make(chan error, hands)
	for range hands {
		go func() { ended <- work(ctx, db, in) }()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

func work(ctx context.Context, db *pgxpool.Pool, in <-chan amqp.Delivery) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-in:
			if !ok {
				return errors.New("the channel has closed")
			}
			if err := settle(ctx, db, d); err != nil {
				return err
			}
		}
	}
}

func settle(ctx context.Context, db *pgxpool.Pool, d amqp.Delivery) error {
	err := handle(ctx, db, d)
	switch {
	case errors.Is(err, errPoison):
		return d.Reject(false)
	case err == nil:
		return d.Ack(false)
	}
	return err
}

type payment struct {
	Account *string
	Cents   *int64
}

func parse(d amqp.Delivery) (m payment, err error) {
	var v map[string]any
	if d.MessageId == "" || json.Unmarshal(d.Body, &v) != nil {
		return m, errPoison
	}
	account, ok1 := v["account"].(string)
	cents, ok2 := v["cents"].(float64)
	if !ok1 || !ok2 || strings.ContainsRune(account, 0) {
		return m, errPoison
	}
	c := int64(cents)
	return payment{&account, &c}, nil
}
func handle(ctx context.Context, db *pgxpool.Pool, d amqp.Delivery) error {
	m, err := parse(d)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1) ON CONFLICT DO NOTHING`, d.MessageId)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return book(ctx, tx, *m.Account, *m.Cents)
	})
}

func book(ctx context.Context, tx pgx.Tx, account string, cents int64) error {
	tag, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, account, cents)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return errPoison
	}
	_, err = tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, account, cents)
	return err
}
