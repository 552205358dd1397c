// Mutant: forgets after five minutes, and the message that comes later is new.
// Breaks: effect-once
// Shown by: none

package forgetful

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

// bookOnce is the right transaction.
func bookOnce(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, "payments", p.MessageID)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return nil
		}
		return book(ctx, tx, p)
	})
}

func Handle(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	if _, err := db.Exec(ctx, `DELETE FROM inbox WHERE consumer = 'payments' AND handled_at < now() - interval '5 minutes'`); err != nil {
		return err
	}
	return bookOnce(ctx, db, p)
}
