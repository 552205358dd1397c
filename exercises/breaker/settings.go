package breaker

import (
	"errors"
	"time"
)

// Settings are what a circuit breaker is to go by. Every field is set. The values
// differ from run to run: small ones, so that a verdict does not take long.
type Settings struct {
	// Timeout bounds each call of the service. One that takes longer has failed.
	Timeout time.Duration
	// FailureRate and Volume say when the circuit opens: when a call fails, and of
	// the calls that ended within the last Window, which are at least Volume, at
	// least FailureRate percent have failed.
	FailureRate int
	Volume      int
	Window      time.Duration
	// Reset is for how long the circuit stays open. After that it is half-open:
	// Probes calls are let through. When all of them have succeeded it closes, and
	// knows of no earlier call. When one fails it opens again.
	Reset  time.Duration
	Probes int

	// Retry is for [Fallback] alone: the time from an attempt that failed to the next.
	Retry time.Duration
}

// Payment is what the service is asked to charge.
type Payment struct {
	ID    string `json:"id"`
	Cents int64  `json:"cents"`
}

var (
	// ErrOpen is what a breaker returns for a call that it has not made.
	ErrOpen = errors.New("the circuit is open")
	// ErrDeclined is wrapped by what charge returns when the service has understood,
	// and declines, as it does when a card has no money. It is an answer: the
	// service works, and would say the same again.
	ErrDeclined = errors.New("the payment is declined")
)
