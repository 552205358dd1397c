// Package owntable answers inbox/handle with a table of its own, and
// remembers the message last: the unique key makes the second one fail, and
// its money goes back.
package owntable

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/inbox"
)

// Handle books the payment.
func Handle(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	if _, err := db.Exec(ctx, `CREATE TABLE IF NOT EXISTS booked (message_id text PRIMARY KEY)`); err != nil {
		return err
	}
	var known bool
	if err := db.QueryRow(ctx, `SELECT EXISTS (SELECT FROM booked WHERE message_id = $1)`, p.MessageID).Scan(&known); err != nil || known {
		return err
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, p.Account, p.Cents); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO booked VALUES ($1)`, p.MessageID) // fails if another one was quicker: then again, and it is known
		return err
	})
}
