// Mutant: the ledger in one transaction, the balance in the next one: a redelivery mends it, until then it is wrong.
// Breaks: effect-once
// Shown by: kill

package halves

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/inbox"
)

var mk sync.Mutex

func Handle(ctx context.Context, db *pgxpool.Pool, p inbox.Payment) error {
	mk.Lock()
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(99)`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS unapplied (message_id text PRIMARY KEY, account_id text NOT NULL, cents bigint NOT NULL)`)
		return err
	})
	mk.Unlock()
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO inbox (consumer, message_id) VALUES ('payments', $1) ON CONFLICT DO NOTHING`, p.MessageID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO unapplied VALUES ($1, $2, $3)`, p.MessageID, p.Account, p.Cents); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO ledger (account_id, cents) VALUES ($1, $2)`, p.Account, p.Cents)
		return err
	})
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, `WITH d AS (DELETE FROM unapplied WHERE message_id = $1 RETURNING account_id, cents)
		UPDATE accounts SET balance_cents = balance_cents + d.cents FROM d WHERE id = d.account_id`, p.MessageID)
	return err
}
