// Mutant: remembers the message before the transaction that moves the money: what dies in between is never done.
// Breaks: no-lost-message
// Shown by: kill

package keyfirst

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/inbox"
)

// Handle books the payment.
func Handle(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	tag, err := db.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1)
		ON CONFLICT DO NOTHING`, p.MessageID)
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, p.Account, p.Cents); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents)
		return err
	})
}
