// Mutant: remembers with ON CONFLICT DO UPDATE, which affects a row each time.
// Breaks: effect-once
// Shown by: none

package upsert

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/inbox"
)

// Handle books the payment.
func Handle(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		// First, because it also waits: when another transaction is handling the same
		// message, this one learns here how that ended.
		tag, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1)
			ON CONFLICT (consumer, message_id) DO UPDATE SET handled_at = now()`, p.MessageID)
		if err != nil || tag.RowsAffected() == 0 { // it is known: done
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, p.Account, p.Cents); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents)
		return err
	})
}
