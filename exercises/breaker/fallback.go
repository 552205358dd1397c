package breaker

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/pkg/exercise"
)

// Status is what has become of a payment: what pay answers, and the column status.
type Status string

// What may have become of a payment.
const (
	Charged  Status = "charged"  // the service has said so
	Queued   Status = "queued"   // it will be charged, or declined
	Declined Status = "declined" // the service has said so
)

// Fallback is the starter answer of breaker/fallback.
//
// Fallback returns the two halves of a checkout that goes on while the payment
// service does not. pay is called for each payment that a client posts, many at a
// time. work is called once, and runs beside it until its ctx ends. When it returns
// earlier the process ends, and is started again.
//
//   - pay says what has become of the payment. While the service works, and is
//     quick, that is Charged or Declined. While it is down or hangs it is Queued, no
//     later than s.Timeout and what the database takes.
//   - A payment has its row in the table payments, committed, before the service is
//     asked for the first time. So a payment whose row is there will be charged,
//     once, or declined, whatever happens: its client hangs up, or the process dies
//     at any moment.
//   - charge asks the service once. Each attempt for a payment, by whichever
//     process, has the same key: the service charges once for each, and answers the
//     second time as the first. charge returns soon after its ctx has ended. nil
//     means charged. An error that wraps ErrDeclined means declined, and then no
//     attempt follows. After any other error, a deadline above all, nobody knows.
//   - Every call goes through a circuit breaker as in [Guard], those of work too.
//   - A queued payment is tried again s.Retry after an attempt that failed, or a
//     little later; while the circuit is open, after it. If the process died, that
//     is at most three times s.Timeout and one second later.
//   - The same payment may be posted again, even at the same moment. It is one
//     payment, and pay says what has become of it.
//
// pay may return an error when the database does. Its client may post again, or not.
func Fallback(s Settings, db *pgxpool.Pool, charge func(ctx context.Context, key string, p Payment) error) (pay func(context.Context, Payment) (Status, error), work func(context.Context) error) {
	pay = func(context.Context, Payment) (Status, error) { return "", exercise.ErrNotImplemented } // your code
	work = func(ctx context.Context) error { <-ctx.Done(); return nil }                            // your code
	return pay, work
}

// CheckFallback judges an answer to breaker/fallback and fails t if it does not pass.
func CheckFallback(t testing.TB, fallback func(Settings, *pgxpool.Pool, func(context.Context, string, Payment) error) (func(context.Context, Payment) (Status, error), func(context.Context) error)) {
	t.Helper()
	exercise.Check(t, "breaker/fallback", func(ctx context.Context, p *exercise.Process, arg json.RawMessage) error {
		s, err := readSettings(arg)
		if err != nil {
			return err
		}
		db, err := p.Postgres(ctx)
		if err != nil {
			return err
		}
		pay, work := fallback(s, db, charge)
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() {
			err := work(ctx)
			if err == nil {
				err = errors.New("breaker: work returned")
			}
			cancel(err)
		}()
		if err := serve(ctx, p.Addr(), func(ctx context.Context, m Payment) (string, error) {
			status, err := pay(ctx, m)
			return string(status), err
		}); err != nil {
			return err
		}
		return context.Cause(ctx)
	})
}
