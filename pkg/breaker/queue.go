package breaker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/pkg/internal/backoff"
)

// What Submit and Try return.
var (
	// ErrParked tells that the request is put aside: its last error was
	// [Permanent], or there were too many. It wraps the reason where that is at
	// hand.
	ErrParked = errors.New("breaker: the request is parked")
	// ErrKeyReused tells that the key is that of a request with another body.
	ErrKeyReused = errors.New("breaker: the idempotency key belongs to another request")
	// ErrUnknownKey tells that there is no such request.
	ErrUnknownKey = errors.New("breaker: there is no request with this key")
	// ErrInvalidKey tells that a key cannot be used as one.
	ErrInvalidKey = errors.New("breaker: invalid key")
)

// Request is what a dependency is asked to do.
type Request struct {
	// Key is the idempotency key. It is made once, where the request is, from
	// what it is about ("charge-" and the number of the order), or at random and
	// then kept. One made anew for each try to submit is none, nor one made of
	// the clock. 1 to 255 bytes of UTF-8.
	Key string
	// Body is all that Call needs to make the request, at any later time, in any
	// process: the amount too.
	Body []byte
}

// Attempt is a request as Call gets it.
type Attempt struct {
	Request
	Number   int       // 1 is the first, since the request was stored or resumed
	StoredAt time.Time // by the database's clock

	claim int64
}

// Status is what has become of a request.
type Status int

const (
	// Queued: it is stored, and will be done. It may be done already.
	Queued Status = iota
	// Done: the dependency has answered, and that is written down.
	Done
)

// String returns queued or done.
func (s Status) String() string {
	switch s {
	case Queued:
		return "queued"
	case Done:
		return "done"
	}
	return fmt.Sprintf("Status(%d)", int(s))
}

// Result is what a caller is answered.
type Result struct {
	Status Status
	Answer []byte // the dependency's, if done
	// Why tells why it is queued: [ErrOpen], [ErrTimeout], what Call has returned.
	// Nil if somebody else has it in hand.
	Why error
}

// Queue makes requests through a breaker, and keeps in PostgreSQL those that
// cannot be made now: the fallback that loses nothing. Make it with [NewQueue]. All
// methods may be called from several goroutines at once.
type Queue struct {
	pool *pgxpool.Pool
	o    QueueOptions
	b    *Breaker
	log  *slog.Logger

	running atomic.Bool
	counts  counts
}

// NewQueue returns a queue in pool's database. The pool stays the caller's.
func NewQueue(pool *pgxpool.Pool, o QueueOptions) (*Queue, error) {
	if pool == nil {
		return nil, errors.New("breaker: NewQueue needs a pool")
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Queue{pool: pool, o: o, b: o.Breaker, log: o.Logger}, nil
}

// Submit stores r, makes the first attempt, and says whether it is done or queued.
// It takes at most the breaker's Timeout, its bulkhead's MaxWait and twice
// QueueOptions.Timeout.
//
// A request whose key is known is not made again: Submit says what has become of
// it. So after an error, and after a crash, submit again with the same key. With an
// error it is not known whether the request is stored, except with [ErrInvalidKey]
// and [ErrKeyReused], when it is not, and [ErrParked], when it is and a person has to
// see to it.
func (q *Queue) Submit(ctx context.Context, r Request) (Result, error) {
	a, err := q.store(ctx, r)
	if errors.Is(err, pgx.ErrNoRows) {
		return q.look(ctx, r.Key, r.Body)
	}
	if err != nil {
		return Result{}, err
	}
	return q.attempt(ctx, a)
}

// Enqueue stores r in the caller's own transaction, with the order that it is for:
// if that commits the request will be made, and else never. When it has committed,
// call [Queue.Try], for which the first attempt is kept free for as long as
// QueueOptions.Lease; or leave it to Run. It does nothing if the key is known with
// the same body.
func (q *Queue) Enqueue(ctx context.Context, tx pgx.Tx, r Request) error {
	if err := checkKey(r.Key); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, enqueueSQL, q.o.Name, r.Key, notNil(r.Body), q.o.Lease)
	if err != nil {
		return fmt.Errorf("breaker: store a request: %w", err)
	}
	if tag.RowsAffected() == 0 {
		var same bool
		if err := tx.QueryRow(ctx, "SELECT body = $3 FROM breaker_requests WHERE queue = $1 AND key = $2", q.o.Name, r.Key, notNil(r.Body)).Scan(&same); err != nil {
			return fmt.Errorf("breaker: look for a request: %w", err)
		}
		if !same {
			return ErrKeyReused
		}
	}
	return nil
}

// Try makes the first attempt of a request that [Queue.Enqueue] has stored, and
// says what has become of it, as Submit does. Of one that was tried already it
// only says so.
func (q *Queue) Try(ctx context.Context, key string) (Result, error) {
	a, err := q.claim(ctx, firstSQL, key)
	if errors.Is(err, pgx.ErrNoRows) {
		return q.look(ctx, key, nil)
	}
	if err != nil {
		return Result{}, err
	}
	return q.attempt(ctx, a)
}

// attempt calls the dependency for a request that this process has claimed, and
// writes down how it went. The caller is answered even if that fails: the claim
// runs out, and then it is tried again with the same key.
func (q *Queue) attempt(ctx context.Context, a Attempt) (Result, error) {
	answer, err := q.call(ctx, a)
	rejected := errors.Is(err, ErrOpen) || errors.Is(err, ErrFull)
	// The outcome matters whether or not the caller still waits for it.
	op, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.o.Timeout)
	defer cancel()
	if err == nil {
		if err = q.done(op, a, answer); err == nil {
			q.counts.done.Add(1)
			return Result{Status: Done, Answer: answer}, nil
		}
		err = fmt.Errorf("breaker: the dependency has answered, and it could not be written down: %w", err)
	}
	switch {
	case rejected:
		q.counts.rejected.Add(1)
		// There is hope once the circuit lets probes through.
		q.book(q.putBack(op, a, err, backoff.Full(1, q.b.o.ResetTimeout, q.b.o.ResetTimeout)))
	case permanent(err) || a.Number >= q.o.Attempts:
		parked, failed := q.park(op, a, err)
		if failed != nil {
			q.book(failed)
			q.book(q.putBack(op, a, err, backoff.Full(a.Number, q.o.MinRetry, q.o.MaxRetry)))
		}
		if parked {
			q.counts.parked.Add(1)
			q.log.Error("breaker: a request is parked", "queue", q.o.Name, "key", a.Key, "attempts", a.Number, "error", err)
			return Result{}, fmt.Errorf("%w: %w", ErrParked, err)
		}
	default:
		q.counts.retried.Add(1)
		q.log.Debug("breaker: an attempt failed, and will be made again", "queue", q.o.Name, "key", a.Key, "attempt", a.Number, "error", err)
		q.book(q.retry(op, a, err, backoff.Full(a.Number, q.o.MinRetry, q.o.MaxRetry)))
	}
	return Result{Status: Queued, Why: err}, nil
}

func (q *Queue) call(ctx context.Context, a Attempt) (answer []byte, err error) {
	if a.Number > q.o.Attempts {
		// The last attempts were begun and never ended.
		return nil, Permanent(fmt.Errorf("breaker: it was attempted %d times, and the process died or the database failed", a.Number-1))
	}
	answer, err = Get(ctx, q.b, func(ctx context.Context) ([]byte, error) { return q.o.Call(ctx, a) })
	if !errors.Is(err, ErrOpen) && !errors.Is(err, ErrFull) {
		q.counts.attempts.Add(1)
	}
	if f := q.o.Hooks.Attempted; f != nil {
		f(a, err)
	}
	return answer, err
}

// look says what has become of a request that is known. A body that is not nil must
// be the request's.
func (q *Queue) look(ctx context.Context, key string, body []byte) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, q.o.Timeout)
	defer cancel()
	var r Result
	var state, reason string
	var known []byte
	err := q.pool.QueryRow(ctx, "SELECT state, coalesce(reason, ''), answer, body FROM breaker_requests WHERE queue = $1 AND key = $2", q.o.Name, key).
		Scan(&state, &reason, &r.Answer, &known)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return r, ErrUnknownKey
	case err != nil:
		return r, fmt.Errorf("breaker: look for a request: %w", err)
	case body != nil && !bytes.Equal(known, body):
		return Result{}, ErrKeyReused
	case state == "parked":
		return Result{}, fmt.Errorf("%w: %s", ErrParked, reason)
	case state == "done":
		r.Status = Done
	}
	return r, nil
}

// book counts an error of the database after which the queue goes on.
func (q *Queue) book(err error) {
	if err == nil {
		return
	}
	q.counts.failed.Add(1)
	q.log.Warn("breaker: the outcome of an attempt could not be written down; it will be made again when its lease is over", "queue", q.o.Name, "error", err)
	if f := q.o.Hooks.Failed; f != nil {
		f(err)
	}
}

func checkKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: it is empty", ErrInvalidKey)
	case len(key) > 255:
		return fmt.Errorf("%w: it is longer than 255 bytes", ErrInvalidKey)
	case !utf8.ValidString(key) || strings.ContainsRune(key, 0):
		return fmt.Errorf("%w: it is no text", ErrInvalidKey)
	}
	return nil
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
