// Package breaker holds the graded exercises of the circuit breaker: their
// contracts, their starter answers and the checks that notebook cells and tests
// call.
//
// # What an answer is given
//
// A checkout takes payments over HTTP, and calls a payment service. The checkout's
// server and the call are there: an answer is the function between the two. It may
// use github.com/sony/gobreaker/v2 or a breaker of its own.
//
// # How an answer is judged
//
// The answer runs as a process of its own. The judge owns the payment service,
// which works, is down, hangs, or declines, and is the checkout's clients, many at a
// time, who may hang up. It counts which calls reached the service, and whether each
// client was answered. It never looks at the code, the exit code or the output. It
// knows that a machine may be busy: nothing is late that is not late by a second and
// by three times what it may take.
package breaker
