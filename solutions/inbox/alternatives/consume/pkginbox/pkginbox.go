// Package pkginbox answers inbox/consume with this course's own package.
package pkginbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/inbox"
)

// Consume books each payment of the queue once.
func Consume(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	c, err := inbox.New(db, inbox.Options{
		Consumer:    "payments",
		Queue:       "payments",
		Conn:        conn,
		Handle:      book,
		Concurrency: 3, // the pool has one more
		DeadLetter:  true,
		MinRetry:    20 * time.Millisecond,
		MaxRetry:    200 * time.Millisecond,
	})
	if err != nil {
		return fmt.Errorf("make the consumer: %w", err)
	}
	return c.Run(ctx)
}

type payment struct {
	Account string
	Cents   int64
}

// book moves the money; that it does so once is the consumer's work.
func book(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
	var p payment
	if err := json.Unmarshal(d.Body, &p); err != nil {
		return inbox.Permanent(fmt.Errorf("read the payment: %w", err))
	}
	tag, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, p.Account, p.Cents)
	if err != nil {
		return fmt.Errorf("move the money: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return inbox.Permanent(fmt.Errorf("there is no account %q", p.Account))
	}
	if _, err = tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents); err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	return nil
}
