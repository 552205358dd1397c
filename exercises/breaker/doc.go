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
// In breaker/fallback there is a PostgreSQL database too, with one table:
//
//	CREATE TABLE payments (
//	    id     text        PRIMARY KEY,
//	    cents  bigint      NOT NULL,
//	    key    text        NOT NULL UNIQUE, -- the Idempotency-Key of each attempt
//	    status text        NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'charged', 'declined')),
//	    due_at timestamptz NOT NULL DEFAULT now() -- when to try again; yours to use
//	);
//
// An answer may read and write it, and may make tables, functions and triggers of
// its own. The pool has four connections. An answer may open more to the address in
// DATABASE_URL. Nothing else in its environment matters, and no file outlives its
// process.
//
// # How an answer is judged
//
// The answer runs as a process of its own. The judge owns the payment service,
// which works, is down, hangs, or declines, and is the checkout's clients, many at a
// time, who may hang up. It counts which calls reached the service, and whether each
// client was answered. In breaker/fallback it also kills the process, cuts its
// connections, swallows what it sends and fails its statements and requests, at every
// step of its conversation with the database and the service, and starts it again; in
// the end it compares the table with what the service has charged. It never looks at the code, the exit code or the output. It
// knows that a machine may be busy: nothing is late that is not late by a second and
// by three times what it may take.
package breaker
