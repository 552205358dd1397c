package breaker

import (
	"context"
	"testing"

	"crashcourse/pkg/exercise"
)

// Probe is the starter answer of breaker/probe.
//
// Probe keeps the contract of [Guard], with a crowd of callers when the circuit is
// half-open:
//
//   - No more than s.Probes calls are under way then. The others do not wait: they
//     get ErrOpen at once.
//   - When s.Probes of these calls have succeeded, and none has failed, it closes.
//   - One that fails opens it again, for another s.Reset, whatever the other ones
//     say later. One that hangs has failed after s.Timeout.
//   - One whose caller has gone frees its place for another.
//   - A call that began before the circuit opened says nothing about the service as
//     it is now. When it ends, nothing changes.
func Probe(s Settings, charge func(context.Context, Payment) error) func(context.Context, Payment) error {
	return func(context.Context, Payment) error {
		return exercise.ErrNotImplemented // your code
	}
}

// CheckProbe judges an answer to breaker/probe and fails t if it does not pass.
func CheckProbe(t testing.TB, probe func(Settings, func(context.Context, Payment) error) func(context.Context, Payment) error) {
	t.Helper()
	exercise.Check(t, "breaker/probe", guarded(probe))
}
