// Mutant: asks whether the message is known to anybody, and so takes another service's work for its own.
// Breaks: no-lost-message
// Shown by: none

package noconsumer

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/inbox"
)

// Handle books the payment.
func Handle(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var known bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM inbox WHERE message_id = $1)`, p.MessageID).Scan(&known); err != nil || known {
			return err
		}
		tag, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1)
			ON CONFLICT DO NOTHING`, p.MessageID)
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
