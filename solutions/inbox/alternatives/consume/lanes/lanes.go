// Package lanes answers inbox/consume with a line of payments for each account, of
// which the first is being booked, and one statement for a payment.
package lanes

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

type payment struct {
	Account *string `json:"account"`
	Cents   *int64  `json:"cents"`
	d       amqp.Delivery
}

func Consume(ctx context.Context, _ *pgxpool.Pool, conn *amqp.Connection) error {
	err := consume(ctx, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func consume(ctx context.Context, conn *amqp.Connection) error {
	cfg, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	cfg.MaxConns = 16
	db, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Qos(200, 0, false); err != nil {
		return err
	}
	in, err := ch.Consume("payments", "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	type result struct {
		account string
		err     error
	}
	done := make(chan result)
	lanes := map[string][]payment{} // head is being booked
	start := func(p payment) {
		go func() {
			select {
			case done <- result{*p.Account, settle(ctx, db, p)}:
			case <-ctx.Done():
			}
		}()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-done:
			if r.err != nil {
				return r.err
			}
			rest := lanes[r.account][1:]
			if len(rest) == 0 {
				delete(lanes, r.account)
				continue
			}
			lanes[r.account] = rest
			start(rest[0])
		case d, ok := <-in:
			if !ok {
				return errors.New("the channel has closed")
			}
			p := payment{d: d}
			if d.MessageId == "" || json.Unmarshal(d.Body, &p) != nil || p.Account == nil || p.Cents == nil || strings.ContainsRune(*p.Account, 0) {
				if err := d.Reject(false); err != nil {
					return err
				}
				continue
			}
			lanes[*p.Account] = append(lanes[*p.Account], p)
			if len(lanes[*p.Account]) == 1 {
				start(p)
			}
		}
	}
}

func settle(ctx context.Context, db *pgxpool.Pool, p payment) error {
	var known bool
	err := db.QueryRow(ctx, `
		WITH fresh AS (
			INSERT INTO inbox (consumer, message_id) SELECT 'payments', $1 FROM accounts WHERE id = $2::text
			ON CONFLICT DO NOTHING RETURNING message_id
		), raised AS (
			UPDATE accounts SET balance_cents = balance_cents + $3::bigint FROM fresh WHERE id = $2::text
		), noted AS (
			INSERT INTO ledger (account_id, cents) SELECT $2::text, $3::bigint FROM fresh
		)
		SELECT EXISTS (SELECT FROM accounts WHERE id = $2::text)`, p.d.MessageId, *p.Account, *p.Cents).Scan(&known)
	if err != nil {
		return err
	}
	if !known {
		return p.d.Reject(false)
	}
	return p.d.Ack(false)
}
