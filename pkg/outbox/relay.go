package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/internal/backoff"
	"crashcourse/pkg/internal/lifecycle"
	"crashcourse/pkg/internal/link"
)

// ErrConnClosed is wrapped by the error of [Relay.Run] when the connection that
// it was lent, Options.Conn, is closed.
var ErrConnClosed = errors.New("outbox: the connection to the broker is closed")

// ErrStopTimeout is wrapped by the error of [Relay.Run] when it could not finish
// its work within StopTimeout of its context's end. Nothing is lost: what was not
// marked is published again.
var ErrStopTimeout = errors.New("outbox: the relay did not stop in time")

// Relay publishes the events of the outbox. Make it with [NewRelay].
type Relay struct {
	pool *pgxpool.Pool
	o    Options
	link *link.Link
	log  *slog.Logger

	running atomic.Bool
	hard    context.Context // ends when even the finishing has to end; set by Run
	counts  counts
}

// NewRelay returns a relay for the outbox in pool's database. The pool stays the
// caller's; the relay takes a connection of it for each partition that is at
// work, and one to clean, and makes one of its own, outside of it, for Notify
// and for CDC.
func NewRelay(pool *pgxpool.Pool, o Options) (*Relay, error) {
	if pool == nil {
		return nil, errors.New("outbox: NewRelay needs a pool")
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Relay{pool: pool, o: o, link: link.New("outbox", o.Conn, o.Dial, ErrConnClosed), log: o.Logger}, nil
}

// Run publishes events until ctx ends. Then it stops reading, waits for the
// confirms of what is on the way, marks those rows and returns nil, or an error
// that wraps [ErrStopTimeout].
//
// It tries again, after a growing wait, when the database or the broker fails or
// refuses something. It returns an error before ctx ends only if trying again
// cannot help: [ErrConnClosed], a missing table or right, a setting of the
// server. Run may be called again after it has returned, not before.
func (r *Relay) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return errors.New("outbox: Run is running already")
	}
	defer r.running.Store(false)
	r.log.Info("outbox relay starts", "source", r.o.Source.String(), "exchange", r.o.Exchange)

	err := lifecycle.Run(ctx, lifecycle.Stop{Timeout: r.o.StopTimeout, Late: ErrStopTimeout, Drop: r.link.Drop},
		func(soft, hard context.Context, g *errgroup.Group) {
			r.hard = hard
			r.start(soft, g)
		})
	r.link.Close()
	r.log.Info("outbox relay stopped", "source", r.o.Source.String(), "error", err)
	return err
}

// start starts the goroutines that do the work.
func (r *Relay) start(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error {
		if err := r.prepare(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		if r.o.Source == CDC {
			g.Go(func() error { return r.capture(ctx) })
		} else {
			r.poll(ctx, g)
		}
		if r.o.Keep > 0 {
			g.Go(func() error { return r.clean(ctx) })
		}
		return nil
	})
}

// prepare makes what the relay needs and does not find, if it may.
func (r *Relay) prepare(ctx context.Context) error {
	for failures := 1; ctx.Err() == nil; failures++ {
		err := r.prepareOnce(ctx)
		if err == nil || fatal(err) {
			return err
		}
		r.again(ctx, "prepare the database", err, failures)
	}
	return nil
}

func (r *Relay) prepareOnce(ctx context.Context) error {
	op, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	var table, held, trigger bool
	err := r.pool.QueryRow(op, `
		SELECT to_regclass('outbox') IS NOT NULL, to_regclass('outbox_held') IS NOT NULL,
		       EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('outbox') AND tgname = 'outbox_wake')`).Scan(&table, &held, &trigger)
	if err != nil {
		return fmt.Errorf("outbox: look for the tables: %w", err)
	}
	if !table {
		return Migrate(ctx, r.pool)
	}
	if r.o.Source == Notify && !trigger {
		r.log.Warn("outbox: the table has no trigger outbox_wake, so no NOTIFY comes and the relay only polls; Migrate makes it", "interval", r.o.PollInterval)
	}
	if !held {
		return makeHeld(op, r.pool)
	}
	return nil
}

// operation returns the context for a statement that must not be cut short
// when the relay stops: a cancelled statement costs the connection.
func (r *Relay) operation() (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.hard, r.o.Timeout)
}

// again tells of an error and waits before the next try.
func (r *Relay) again(ctx context.Context, what string, err error, failures int) {
	wait := backoff.Wait(failures, r.o.MinRetry, r.o.MaxRetry)
	r.counts.failed.Add(1)
	r.log.Warn("outbox: could not "+what+", trying again", "error", err, "failures", failures, "wait", wait)
	if f := r.o.Hooks.Failed; f != nil {
		f(err)
	}
	backoff.Sleep(ctx, wait)
}

// fatal tells that it is of no use to try again.
func fatal(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:2] {
		case "42": // something is missing or forbidden
			return true
		}
	}
	return errors.Is(err, ErrConnClosed) || errors.Is(err, errSetup)
}

// errSetup is wrapped by errors that a person has to do something about.
var errSetup = errors.New("outbox: the server is not set up for this")

// published books an event that the broker has confirmed.
func (r *Relay) published(m *Message) {
	r.counts.published.Add(1)
	if f := r.o.Hooks.Published; f != nil {
		f(*m)
	}
}

// refuse books an event that the broker did not take, and decides how long its
// aggregate is held.
func (r *Relay) refuse(o outcome) Refusal {
	refusal := Refusal{Reason: o.refusal, Returned: o.returned, Attempts: o.attempts + 1}
	refusal.Wait = backoff.Wait(refusal.Attempts, r.o.MinRetry, r.o.MaxRetry)
	if n := r.counts.refused.Add(1); n == 1 || refusal.Attempts == 1 {
		r.log.Warn("outbox: the broker refused an event; those of its aggregate are held",
			"seq", o.Seq, "message_id", o.ID, "type", o.Type, "aggregate_id", o.AggregateID, "reason", o.refusal, "wait", refusal.Wait)
	}
	if f := r.o.Hooks.Refused; f != nil {
		f(*o.Message, refusal)
	}
	return refusal
}
