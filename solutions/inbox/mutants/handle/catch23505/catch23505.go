// Mutant: takes the unique violation for a yes, inside the transaction that it has spoilt: COMMIT fails, and the message comes back for ever.
// Breaks: all-work-done
// Shown by: none

package catch23505

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/inbox"
)

// Handle books the payment.
func Handle(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1)`, p.MessageID)
		if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == "23505" {
			return nil // it is known
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, p.Account, p.Cents); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents)
		return err
	})
}
