// Mutant: remembers messages in the process: a restart forgets them, and the other process has never heard of them.
// Breaks: effect-once
// Shown by: kill

package memory

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/inbox"
)

var (
	mu   sync.Mutex
	seen = map[string]bool{}
)

// Handle books the payment.
func Handle(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	mu.Lock()
	defer mu.Unlock()
	if seen[p.MessageID] {
		return nil
	}
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE accounts SET balance_cents = balance_cents + $2 WHERE id = $1`, p.Account, p.Cents); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents)
		return err
	})
	if err == nil {
		seen[p.MessageID] = true
	}
	return err
}
