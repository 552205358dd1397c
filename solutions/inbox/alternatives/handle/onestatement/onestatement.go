// Package onestatement answers inbox/handle with one statement: what is new
// flows from the insert into inbox to the two others, or nothing does.
package onestatement

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/inbox"
)

// Handle books the payment.
func Handle(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	_, err := db.Exec(ctx, `WITH fresh AS (
			INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1) ON CONFLICT DO NOTHING RETURNING 1
		), moved AS (
			UPDATE accounts SET balance_cents = balance_cents + $3 WHERE id = $2 AND EXISTS (SELECT FROM fresh)
		)
		INSERT INTO ledger (account_id, cents) SELECT $2, $3 FROM fresh`, p.MessageID, p.Account, p.Cents)
	return err
}
