// Package handsback answers inbox/consume with a short lock_timeout: who does not get
// a lock gives the message back, and holds no connection meanwhile. An advisory
// lock on the message takes the place of ON CONFLICT.
package handsback

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

var errPoison = errors.New("can never be booked")

func Consume(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ended := make(chan error, 64)
	for range 8 {
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		if err := ch.Qos(4, 0, false); err != nil {
			return err
		}
		in, err := ch.Consume("payments", "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		go func() {
			for d := range in {
				go func() {
					if err := settle(ctx, db, d); err != nil {
						ended <- err
					}
				}()
			}
			ended <- errors.New("a channel has closed")
		}()
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

func settle(ctx context.Context, db *pgxpool.Pool, d amqp.Delivery) error {
	err := book(ctx, db, d)
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return d.Ack(false)
	case errors.Is(err, errPoison):
		return d.Reject(false)
	case errors.As(err, &pg) && pg.Code == "55P03":
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
		return d.Nack(false, true)
	}
	return err
}

func book(ctx context.Context, db *pgxpool.Pool, d amqp.Delivery) error {
	var m struct {
		Account *string `json:"account"`
		Cents   *int64  `json:"cents"`
	}
	if d.MessageId == "" || json.Unmarshal(d.Body, &m) != nil || m.Account == nil || m.Cents == nil || strings.ContainsRune(*m.Account, 0) {
		return errPoison
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '100ms'`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 7))`, d.MessageId); err != nil {
			return err
		}
		var seen bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM inbox WHERE consumer = 'payments' AND message_id = $1)`, d.MessageId).Scan(&seen); err != nil || seen {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1)`, d.MessageId); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, *m.Account, *m.Cents)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return errPoison
		}
		_, err = tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, *m.Account, *m.Cents)
		return err
	})
}
