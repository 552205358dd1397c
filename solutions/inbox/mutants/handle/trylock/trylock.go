// Mutant: who does not get the lock of a message takes it for handled, while the transaction that holds it is rolled back.
// Breaks: no-lost-message
// Shown by: kill
// Mode: full

package trylock

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/inbox"
)

func book(ctx context.Context, tx pgx.Tx, p inbox.Payment) error {
	tag, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, p.Account, p.Cents)
	if err != nil {
		return err
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("no account %q", p.Account)
	}
	_, err = tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents)
	return err
}

func Handle(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))`, p.MessageID).Scan(&mine); err != nil {
			return err
		}
		if !mine {
			return nil
		}
		tag, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1) ON CONFLICT DO NOTHING`, p.MessageID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return book(ctx, tx, p)
	})
}
