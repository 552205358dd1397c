package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/internal/backoff"
	"crashcourse/pkg/internal/lifecycle"
	"crashcourse/pkg/internal/link"
)

// ErrConnClosed is wrapped by the error of [Consumer.Run] when the connection that
// it was lent, Options.Conn, is closed.
var ErrConnClosed = errors.New("inbox: the connection to the broker is closed")

// ErrStopTimeout is wrapped by the error of [Consumer.Run] when it could not finish
// its work within StopTimeout of its context's end. Nothing is lost: what was not
// acked is delivered again.
var ErrStopTimeout = errors.New("inbox: the consumer did not stop in time")

// errRecovery tells that Run refuses a connection.
var errRecovery = errors.New("inbox: amqp.Config.Recovery is set; a channel that the library has recovered counts its delivery tags anew, so that an ack can hit another message: leave it unset")

// Consumer handles the messages of a queue, each once. Make it with [New].
type Consumer struct {
	pool  *pgxpool.Pool
	o     Options
	link  *link.Link
	log   *slog.Logger
	begin string // how a transaction begins

	running  atomic.Bool
	sessions atomic.Int64
	counts   counts
	hand     hand
	last     lastError
}

// New returns a consumer whose effects are in pool's database. The pool stays the
// caller's; the consumer takes Concurrency connections of it at a time, and now
// and then one more.
func New(pool *pgxpool.Pool, o Options) (*Consumer, error) {
	if pool == nil {
		return nil, errors.New("inbox: New needs a pool")
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.Conn != nil && o.Conn.IsRecoveryEnabled() {
		return nil, errRecovery
	}
	c := &Consumer{pool: pool, o: o, log: o.Logger}
	// A process that is frozen, or cut off, must not keep the twins of its messages
	// waiting for as long as the server believes in its connection.
	c.begin = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = " + strconv.FormatInt(3*o.Timeout.Milliseconds(), 10)
	dial := o.Dial
	if dial != nil {
		dial = func(ctx context.Context) (*amqp.Connection, error) {
			conn, err := o.Dial(ctx)
			if err == nil && conn.IsRecoveryEnabled() {
				_ = conn.Close()
				return nil, errRecovery
			}
			return conn, err
		}
	}
	c.link = link.New("inbox", o.Conn, dial, ErrConnClosed)
	return c, nil
}

// Run handles messages until ctx ends. Then it begins nothing new, finishes the
// transactions that have begun, acks, gives the rest back to the queue, and returns
// nil, or an error that wraps [ErrStopTimeout].
//
// It tries again, after a growing wait, when the database or the broker fails or
// the queue is missing. It returns an error before ctx ends only if trying again
// cannot help: [ErrConnClosed], a missing table or right. Run may be called again
// after it has returned, not before.
func (c *Consumer) Run(ctx context.Context) error {
	if !c.running.CompareAndSwap(false, true) {
		return errors.New("inbox: Run is running already")
	}
	defer c.running.Store(false)
	c.log.Info("inbox consumer starts", "consumer", c.o.Consumer, "queue", c.o.Queue)
	err := lifecycle.Run(ctx, lifecycle.Stop{Timeout: c.o.StopTimeout, Late: ErrStopTimeout, Drop: c.link.Drop},
		func(soft, hard context.Context, g *errgroup.Group) {
			g.Go(func() error {
				if err := c.prepare(soft); err != nil || soft.Err() != nil {
					return err
				}
				if c.o.Retention > 0 {
					g.Go(func() error { return c.rotate(soft) })
				}
				return c.consume(soft, hard)
			})
		})
	c.link.Close()
	c.log.Info("inbox consumer stopped", "consumer", c.o.Consumer, "queue", c.o.Queue, "error", err)
	return err
}

// consume opens session after session until ctx ends.
func (c *Consumer) consume(ctx, hard context.Context) error {
	for failures := 0; ctx.Err() == nil; {
		s, err := c.open(ctx, hard)
		if err == nil {
			err = s.run(ctx)
			if s.settled {
				failures = 0
			}
		}
		switch {
		case fatal(err):
			return err
		case ctx.Err() != nil:
			return nil
		}
		failures++
		c.again(ctx, "consume", err, failures)
	}
	return nil
}

// prepare makes the tables if there are none, and says how long this consumer
// wants its rows kept.
func (c *Consumer) prepare(ctx context.Context) error {
	for failures := 1; ctx.Err() == nil; failures++ {
		err := c.prepareOnce(ctx)
		if err == nil || fatal(err) {
			return err
		}
		c.again(ctx, "prepare the database", err, failures)
	}
	return nil
}

func (c *Consumer) prepareOnce(ctx context.Context) error {
	op, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	var table bool
	if err := c.pool.QueryRow(op, "SELECT to_regclass('inbox_messages') IS NOT NULL AND to_regclass('inbox_parked') IS NOT NULL").Scan(&table); err != nil {
		return ours("inbox: look for the tables: %w", err)
	}
	if !table {
		if err := Migrate(ctx, c.pool); err != nil {
			return &ourError{err}
		}
	}
	return c.register(op)
}

// again tells of an error and waits before the next try.
func (c *Consumer) again(ctx context.Context, what string, err error, failures int) {
	wait := backoff.Wait(failures, c.o.MinRetry, c.o.MaxRetry)
	c.tell(what, err, "failures", failures, "wait", wait)
	backoff.Sleep(ctx, wait)
}

// tell tells of an error after which something is tried again.
func (c *Consumer) tell(what string, err error, args ...any) {
	c.counts.failed.Add(1)
	c.last.set(err)
	c.log.Warn("inbox: could not "+what+", trying again", append([]any{"queue", c.o.Queue, "error", err}, args...)...)
	if f := c.o.Hooks.Failed; f != nil {
		f(err)
	}
}

// fatal tells that it is of no use to try again.
func fatal(err error) bool {
	var own *ourError
	return errors.Is(err, ErrConnClosed) || errors.Is(err, errRecovery) || errors.As(err, &own) && causeOf(err, false, false) == broken
}

// register says how long this consumer wants its rows kept.
func (c *Consumer) register(ctx context.Context) error {
	_, err := c.pool.Exec(ctx, `
		INSERT INTO inbox_consumers (consumer, retention)
		VALUES ($1, CASE WHEN $2::bigint >= 0 THEN $2::bigint * interval '1 ms' END)
		ON CONFLICT (consumer) DO UPDATE SET retention = excluded.retention
		WHERE inbox_consumers.retention IS DISTINCT FROM excluded.retention`, c.o.Consumer, c.o.Retention.Milliseconds())
	if err != nil {
		return &ourError{fmt.Errorf("inbox: register the consumer: %w", err)}
	}
	return nil
}
