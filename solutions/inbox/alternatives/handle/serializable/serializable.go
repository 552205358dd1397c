// Package serializable answers inbox/handle with check-then-act under
// SERIALIZABLE, where the database notices that two cannot both have found
// nothing, and one tries again.
package serializable

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
	for {
		err := book(ctx, db, p)
		if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "23505") {
			continue
		}
		return err
	}
}

func book(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	return pgx.BeginTxFunc(ctx, db, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx pgx.Tx) error {
		var known bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM inbox WHERE consumer = 'payments' AND message_id = $1)`, p.MessageID).Scan(&known); err != nil || known {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1)`, p.MessageID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, p.Account, p.Cents); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents)
		return err
	})
}
