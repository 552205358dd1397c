// Package pkgonce answers inbox/handle with one step of this course's own package.
package pkgonce

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	contract "crashcourse/exercises/inbox"
	"crashcourse/pkg/inbox"
)

// Handle books the payment.
func Handle(ctx context.Context, db *pgxpool.Pool, p contract.Payment) error {
	var exists bool
	if err := db.QueryRow(ctx, `SELECT to_regclass('inbox_parked') IS NOT NULL`).Scan(&exists); err != nil { // its last table
		return fmt.Errorf("look for the package's tables: %w", err)
	}
	if !exists {
		if err := inbox.Migrate(ctx, db); err != nil {
			return err
		}
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		first, err := inbox.Once(ctx, tx, "payments", p.MessageID)
		if err != nil || !first {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, p.Account, p.Cents); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents)
		return err
	})
}
