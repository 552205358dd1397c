package inbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"crashcourse/pkg/postgres"
)

// Permanent marks an error of Options.Handle or Options.Before as one that no
// further attempt can mend: the message is parked at once. It wraps err. Of nil it
// is nil.
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
	return errors.As(err, &p) || errors.Is(err, ErrInvalidID)
}

// errHandler is wrapped by the errors of handlers that broke the rules.
var errHandler = errors.New("inbox: the handler broke the rules")

// ourError marks an error of the consumer's own doing: no message is at fault.
type ourError struct{ err error }

func (e *ourError) Error() string { return e.err.Error() }
func (e *ourError) Unwrap() error { return e.err }

func ours(format string, args ...any) error { return &ourError{fmt.Errorf(format, args...)} }

// cause is what kind of error made a transaction fail.
type cause int

const (
	fault    cause = iota // a message's, or its handler's
	conflict              // with another transaction: nobody's
	lost                  // the connection, or the server is not well
	broken                // the tables, or the role's rights: trying again is of no use
)

// causeOf judges the error of a transaction. closed tells that its connection is
// closed, late that the call was given up because it took longer than Timeout.
func causeOf(err error, closed, late bool) cause {
	var own *ourError
	mine := errors.As(err, &own)
	state := postgres.SQLState(err)
	switch {
	case !mine && (late || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
		return fault // it took too long, and that costs the connection
	case len(state) == 5:
		switch state[:2] {
		case "40":
			return conflict
		case "08", "53", "58":
			return lost
		case "57":
			if state != "57014" || mine { // query_canceled may be for the query's sake
				return lost
			}
		case "42":
			if mine {
				return broken
			}
		}
		switch state {
		case "55P03": // lock_not_available
			return conflict
		case "25006": // read_only_sql_transaction: a standby, after a failover
			return lost
		}
	}
	var connect *pgconn.ConnectError
	if mine || closed || errors.As(err, &connect) {
		return lost
	}
	return fault
}

// guard calls f and turns a panic into an error. f runs in a goroutine of its own,
// so that runtime.Goexit ends only that.
func guard(f func() error) error {
	ended := make(chan error, 1)
	go func() {
		err := fmt.Errorf("%w: it called runtime.Goexit", errHandler)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("inbox: panic: %v\n%s", p, debug.Stack())
			}
			ended <- err
		}()
		err = f()
	}()
	return <-ended
}

// handlerTx is the transaction as a handler sees it: it ends with the handler, not
// before.
type handlerTx struct{ pgx.Tx }

// Commit refuses: messages of the same batch that have not been handled would
// count as handled.
func (handlerTx) Commit(context.Context) error {
	return fmt.Errorf("%w: it must not commit the transaction", errHandler)
}

// Rollback refuses; a handler that wants its work undone returns an error.
func (handlerTx) Rollback(context.Context) error {
	return fmt.Errorf("%w: it must not roll the transaction back", errHandler)
}
