// Mutant: puts the time into the key, as publishers do who make an id for each sending.
// Breaks: effect-once
// Shown by: none

package clockid

import (
	"context"
	"fmt"
	"time"

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
			ON CONFLICT DO NOTHING`, fmt.Sprint(p.MessageID, "-", time.Now().UnixMilli()))
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
