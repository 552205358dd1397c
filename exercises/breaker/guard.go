package breaker

import (
	"context"
	"encoding/json"
	"testing"

	"crashcourse/pkg/exercise"
)

// Guard is the starter answer of breaker/guard.
//
// Guard returns a function that calls charge behind a circuit breaker. The function
// is called by many goroutines at once.
//
//   - It calls charge at most once, and returns its error. While the circuit is
//     open it does not call it, and returns ErrOpen.
//   - The context that it gives to charge ends after s.Timeout, or when its own
//     does. charge returns soon after that.
//   - s says when the circuit opens and closes.
//   - nil is a success, and so is an error that wraps ErrDeclined. A call whose
//     caller has gone, so that its context was cancelled, counts as neither a success
//     nor a failure. Every other error is a failure, one by s.Timeout too.
func Guard(s Settings, charge func(context.Context, Payment) error) func(context.Context, Payment) error {
	return func(context.Context, Payment) error {
		return exercise.ErrNotImplemented // your code
	}
}

// CheckGuard judges an answer to breaker/guard and fails t if it does not pass.
func CheckGuard(t testing.TB, guard func(Settings, func(context.Context, Payment) error) func(context.Context, Payment) error) {
	t.Helper()
	exercise.Check(t, "breaker/guard", guarded(guard))
}

// guarded serves payments, each by a call of the function that guard returns.
func guarded(guard func(Settings, func(context.Context, Payment) error) func(context.Context, Payment) error) exercise.Handler {
	return func(ctx context.Context, p *exercise.Process, arg json.RawMessage) error {
		s, err := readSettings(arg)
		if err != nil {
			return err
		}
		pay := guard(s, func(ctx context.Context, m Payment) error { return charge(ctx, "", m) })
		return serve(ctx, p.Addr(), func(ctx context.Context, m Payment) (string, error) { return "charged", pay(ctx, m) })
	}
}
