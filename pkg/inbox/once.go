package inbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Once books the message id as handled by consumer, as part of tx, and tells
// whether that was the first time. If it was not, have no effect and ack. It is
// what a [Consumer] does, for those who have a consumer of their own:
//
//	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
//		first, err := inbox.Once(ctx, tx, "billing", d.MessageId)
//		if err != nil || !first {
//			return err
//		}
//		_, err = tx.Exec(ctx, "UPDATE accounts …")
//		return err
//	})
//	if err == nil {
//		err = d.Ack(false) // after the commit, never before
//	}
//
// While another transaction that has booked the same id is at work, Once waits
// for its end: true if it was rolled back, false if it was committed. So call it
// first in the transaction, and give ctx a deadline.
//
// When it returns an error other than [ErrInvalidID], tx has failed and must be
// rolled back. With REPEATABLE READ or SERIALIZABLE the server may raise 40001,
// upon which the transaction is to be tried again.
func Once(ctx context.Context, tx pgx.Tx, consumer, id string) (first bool, err error) {
	if err := checkID(consumer); err != nil {
		return false, fmt.Errorf("inbox: the consumer's name: %w", err)
	}
	if err := checkID(id); err != nil {
		return false, err
	}
	if err := tx.QueryRow(ctx, "SELECT count(*) > 0 FROM inbox_first($1, ARRAY[$2::text])", consumer, id).Scan(&first); err != nil {
		return false, fmt.Errorf("inbox: book message %q (roll the transaction back): %w", id, err)
	}
	return first, nil
}
