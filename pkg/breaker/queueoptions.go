package breaker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// QueueOptions are the options of a [Queue]. Name, Breaker and Call are needed;
// every other field may be left zero.
type QueueOptions struct {
	// Name names the queue: requests of one name are worked on by the queues of
	// that name, in as many processes as there are. 1 to 255 bytes of UTF-8.
	Name string
	// Breaker stands before the dependency. It must have a deadline.
	Breaker *Breaker

	// Call makes an attempt: it calls the dependency with a.Key as idempotency
	// key, and returns its answer. Any error has it tried again, with the same
	// key, unless it is [Permanent]. It must heed ctx. What the dependency says
	// of the matter, such as that a card has no money, is best an answer, not an
	// error: then the request is done. It may be called by several goroutines at
	// once.
	Call func(ctx context.Context, a Attempt) (answer []byte, err error)
	// Done, if set, has the effect that the answer has on this side, through tx:
	// it sets the order to paid, or enqueues an event into an outbox. It happens
	// once, for the same transaction marks the request as done. An error undoes
	// it, and the request stays queued: Call is called again, with the same key.
	Done func(ctx context.Context, tx pgx.Tx, a Attempt, answer []byte) error
	// Parked, if set, does the same for a request that is being parked. Until it
	// succeeds the request stays queued.
	Parked func(ctx context.Context, tx pgx.Tx, a Attempt, reason error) error

	// Concurrency is how many attempts Run makes at a time. Zero: 2.
	Concurrency int
	// Attempts is how many calls may fail before a request is parked. Those that
	// the breaker or the bulkhead rejects are none. Zero: 100, which with the
	// waits between them takes about four hours.
	Attempts int
	// MinRetry and MaxRetry bound the wait before the next attempt, with full
	// jitter: it is anything up to MinRetry after the first failure, up to twice
	// that after the second, and at most MaxRetry. Zero: 1 s and 5 min.
	MinRetry, MaxRetry time.Duration
	// Lease is for how long a request is left alone that somebody works on. When
	// it is over he counts as dead, and it is tried again. It must be longer than
	// the breaker's Timeout, its bulkhead's MaxWait and Timeout together. Zero:
	// 30 s, or twice that sum if that is more.
	Lease time.Duration
	// PollInterval is how often Run looks for requests that are due, when there
	// was none. Zero: 500 ms.
	PollInterval time.Duration

	// Timeout bounds each wait for the database. Zero: 5 s.
	Timeout time.Duration
	// StopTimeout bounds what Run does after its context has ended: it lets the
	// attempts that have begun end, and writes down how. Zero: 5 s.
	StopTimeout time.Duration

	// Keep is how long requests that are done are kept: for so long a key that is
	// submitted again is known. Zero: 7 days. Negative: for ever.
	Keep time.Duration
	// CleanInterval is how often Run deletes what was kept for long enough. Zero:
	// 1 min.
	CleanInterval time.Duration

	// Logger is told of starts, stops, parked requests and errors. Nil:
	// slog.Default().
	Logger *slog.Logger
	// Hooks are called as things happen.
	Hooks Hooks
}

// Hooks feed metrics and tests. Each may be nil. They are called by the goroutines
// that do the work, several at once, and hold it up: be quick.
type Hooks struct {
	// Attempted is called after each attempt, before its outcome is written down.
	// err is what [Breaker.Do] has returned.
	Attempted func(a Attempt, err error)
	// Failed is called with each error of the database after which the queue
	// tries again.
	Failed func(error)
}

// withDefaults checks o and fills in what is zero.
func (o QueueOptions) withDefaults() (QueueOptions, error) {
	if err := checkKey(o.Name); err != nil {
		return o, fmt.Errorf("breaker: QueueOptions.Name: %w", err)
	}
	if o.Breaker == nil || o.Call == nil {
		return o, errors.New("breaker: set QueueOptions.Breaker and QueueOptions.Call")
	}
	if o.Breaker.o.Timeout < 0 {
		return o, errors.New("breaker: the Breaker of a Queue must have a Timeout: its caller is to be answered in time")
	}
	o.Concurrency = cmp.Or(o.Concurrency, 2)
	o.Attempts = cmp.Or(o.Attempts, 100)
	if o.Concurrency < 1 || o.Attempts < 1 {
		return o, fmt.Errorf("breaker: QueueOptions.Concurrency is %d and Attempts %d; they must be at least 1", o.Concurrency, o.Attempts)
	}
	o.MinRetry = cmp.Or(o.MinRetry, time.Second)
	o.MaxRetry = cmp.Or(o.MaxRetry, max(5*time.Minute, o.MinRetry))
	o.PollInterval = cmp.Or(o.PollInterval, 500*time.Millisecond)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.StopTimeout = cmp.Or(o.StopTimeout, 5*time.Second)
	o.Keep = cmp.Or(o.Keep, 7*24*time.Hour)
	o.CleanInterval = cmp.Or(o.CleanInterval, time.Minute)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	longest := o.Breaker.o.Timeout + o.Timeout
	if k := o.Breaker.o.Bulkhead; k != nil {
		longest += k.o.MaxWait
	}
	o.Lease = cmp.Or(o.Lease, max(30*time.Second, 2*longest))
	if o.Lease <= longest {
		return o, fmt.Errorf("breaker: QueueOptions.Lease is %v; an attempt may take %v", o.Lease, longest)
	}
	for name, d := range map[string]time.Duration{
		"MinRetry": o.MinRetry, "MaxRetry": o.MaxRetry, "PollInterval": o.PollInterval,
		"Timeout": o.Timeout, "StopTimeout": o.StopTimeout, "CleanInterval": o.CleanInterval,
	} {
		if d < 0 {
			return o, fmt.Errorf("breaker: QueueOptions.%s is %v; it must not be negative", name, d)
		}
	}
	return o, nil
}
