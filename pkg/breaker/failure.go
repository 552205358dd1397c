package breaker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// What Do returns without, or in place of, an error of the function.
var (
	// ErrOpen tells that the call was not made, because the circuit is open, or
	// half-open with all its probes under way.
	ErrOpen = errors.New("breaker: the circuit is open")
	// ErrFull tells that the call was not made, because too many others are under
	// way. See [Bulkhead].
	ErrFull = errors.New("breaker: the bulkhead is full")
	// ErrTimeout tells that the call took too long. It wraps
	// context.DeadlineExceeded. What the call does may have happened.
	ErrTimeout = fmt.Errorf("breaker: the call took too long: %w", context.DeadlineExceeded)
)

// errProbing is ErrOpen in half-open.
var errProbing = fmt.Errorf("%w: probes are under way", ErrOpen)

// Permanent marks an error as the dependency's answer: it has understood, and will
// say the same next time. A breaker counts it as a success unless
// Options.IsSuccessful says otherwise, and a [Queue] does not try again. It wraps
// err. Of nil it is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

func permanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

// How a call counts that is not a success. errFailed is only ever compared.
var (
	errFailed   = errors.New("breaker: failed")
	errExcluded = errors.New("breaker: excluded")
	errGoexit   = errors.New("breaker: the function called runtime.Goexit")
)

// brokeOff is an error that no dependency has answered with.
type brokeOff struct{ err error }

func (e *brokeOff) Error() string { return e.err.Error() }
func (e *brokeOff) Unwrap() error { return e.err }

// verdict says how a call counts that has not returned nil. It is found out here
// because gobreaker would ask under its lock.
func (b *Breaker) verdict(ctx context.Context, err error) error {
	if ctx.Err() == context.Canceled {
		return errExcluded // whatever it says, it may be for the caller's sake
	}
	var broke *brokeOff
	if !errors.Is(err, ErrTimeout) && !errors.As(err, &broke) && b.o.IsSuccessful(err) {
		return nil
	}
	return errFailed
}

// panicked makes an error of what recover has returned.
func panicked(p any) error {
	if err, ok := p.(error); ok {
		return &brokeOff{fmt.Errorf("breaker: panic: %w\n%s", err, debug.Stack())}
	}
	return &brokeOff{fmt.Errorf("breaker: panic: %v\n%s", p, debug.Stack())}
}
