package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/breaker"
)

func TestSubmit(t *testing.T) {
	w := newWorld(t)
	q := w.queue(breaker.QueueOptions{})
	for range 3 {
		if r := w.submit(q, "charge-1", "charge-1"); r.Status != breaker.Done || string(r.Answer) != "charged charge-1" || r.Why != nil {
			t.Errorf("%v %q %v", r.Status, r.Answer, r.Why)
		}
	}
	if n := w.bank.called(); n != 1 {
		t.Errorf("%d calls", n)
	}
	if _, err := q.Submit(t.Context(), breaker.Request{Key: "charge-1", Body: []byte("other")}); !errors.Is(err, breaker.ErrKeyReused) {
		t.Errorf("%v", err)
	}
	for _, key := range []string{"", strings.Repeat("x", 256), "a\x00", "\xff"} {
		if _, err := q.Submit(t.Context(), breaker.Request{Key: key}); !errors.Is(err, breaker.ErrInvalidKey) {
			t.Errorf("%q: %v", key, err)
		}
	}
	if _, err := q.Try(t.Context(), "unknown"); !errors.Is(err, breaker.ErrUnknownKey) {
		t.Errorf("%v", err)
	}
	w.awaitSettled(q, "charge-1")
	if s := w.stats(q); s.Attempts != 1 || s.Done != 1 || s.Oldest != 0 || s.State != breaker.Closed {
		t.Errorf("%+v", s)
	}
}

// The same request at the same time, as from a customer who presses twice.
func TestSubmitConcurrently(t *testing.T) {
	w := newWorld(t)
	w.bank.set(slow(20*time.Millisecond), nil)
	q := w.queue(breaker.QueueOptions{})
	var g sync.WaitGroup
	for range 20 {
		g.Go(func() { w.submit(q, "charge-1", "charge-1") })
	}
	g.Wait()
	w.awaitSettled(q, "charge-1")
	if n := w.bank.called(); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// The request is stored with the order, or not at all.
func TestEnqueue(t *testing.T) {
	w := newWorld(t)
	q := w.queue(breaker.QueueOptions{})
	enqueue := func(key, body string, then error) error {
		return pgx.BeginFunc(t.Context(), w.DB, func(tx pgx.Tx) error {
			if err := q.Enqueue(t.Context(), tx, breaker.Request{Key: key, Body: []byte(body)}); err != nil {
				return err
			}
			return then
		})
	}
	w.must(enqueue("charge-1", "charge-1", nil))
	w.must(enqueue("charge-1", "charge-1", nil))
	if err := enqueue("charge-1", "other", nil); !errors.Is(err, breaker.ErrKeyReused) {
		t.Errorf("%v", err)
	}
	if err := enqueue("charge-2", "charge-2", errDown); err != errDown {
		t.Errorf("%v", err)
	}
	if w.bank.called() != 0 {
		t.Error("called before Try")
	}
	r, err := q.Try(t.Context(), "charge-1")
	if err != nil || r.Status != breaker.Done {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := q.Try(t.Context(), "charge-2"); !errors.Is(err, breaker.ErrUnknownKey) {
		t.Errorf("%v", err)
	}
	w.checkEffects("charge-1")
}

// Whoever has enqueued dies before he tries.
func TestEnqueueWithoutTry(t *testing.T) {
	w := newWorld(t)
	q := w.queue(breaker.QueueOptions{Breaker: w.quick(breaker.Options{Timeout: 50 * time.Millisecond}), Timeout: 200 * time.Millisecond, Lease: 300 * time.Millisecond})
	w.must(pgx.BeginFunc(t.Context(), w.DB, func(tx pgx.Tx) error {
		return q.Enqueue(t.Context(), tx, breaker.Request{Key: "charge-1", Body: []byte("charge-1")})
	}))
	w.run(q)
	w.awaitSettled(q, "charge-1")
}

// The service is dark for a while. Every caller is answered, hardly any call is made,
// and when it is back everything is charged, once.
func TestDarkService(t *testing.T) {
	w := newWorld(t)
	w.bank.set(down, nil)
	b := w.quick(breaker.Options{ResetTimeout: 200 * time.Millisecond})
	q := w.queue(breaker.QueueOptions{Breaker: b})
	stop := w.run(q)
	keys := numbered(60)
	began := time.Now()
	for _, key := range keys {
		if r := w.submit(q, key, key); r.Status != breaker.Queued || r.Why == nil {
			t.Fatalf("%v %v", r.Status, r.Why)
		}
	}
	w.await("it has been probed", func() bool { return w.stats(q).Rejected > 0 && time.Since(began) > 600*time.Millisecond })
	// The first five open it; then one probe in 200 ms at the most.
	if n, most := w.bank.called(), 8+int(time.Since(began)/(200*time.Millisecond)); n > most {
		t.Errorf("%d calls to a service that is down, want %d at the most", n, most)
	}
	w.bank.set(nil, nil)
	w.awaitSettled(q, keys...)
	if s := w.stats(q); s.State != breaker.Closed || s.Parked != 0 {
		t.Errorf("%+v", s)
	}
	w.must(stop())
}

// It charges, and its answer does not come: the timeout is ambiguous, and the retry
// has the same key.
func TestTimeoutAfterTheCharge(t *testing.T) {
	w := newWorld(t)
	var calls atomic.Int64
	w.bank.set(nil, func(rw http.ResponseWriter, r *http.Request, key string) bool {
		return calls.Add(1) <= 2 && hang(rw, r, key)
	})
	q := w.queue(breaker.QueueOptions{Breaker: w.quick(breaker.Options{Timeout: 50 * time.Millisecond})})
	if r := w.submit(q, "charge-1", "charge-1"); r.Status != breaker.Queued || !errors.Is(r.Why, breaker.ErrTimeout) {
		t.Errorf("%v %v", r.Status, r.Why)
	}
	w.run(q)
	w.awaitSettled(q, "charge-1")
	if n := w.bank.called(); n < 3 {
		t.Errorf("%d calls", n)
	}
}

func TestFlappingService(t *testing.T) {
	w := newWorld(t)
	var calls atomic.Int64
	w.bank.set(func(rw http.ResponseWriter, r *http.Request, key string) bool {
		switch n := calls.Add(1); {
		case n/20%2 == 0 && n%4 != 0:
			return down(rw, r, key)
		case n%7 == 0:
			return hang(rw, r, key)
		}
		return false
	}, func(http.ResponseWriter, *http.Request, string) bool {
		if calls.Load()%5 == 0 {
			panic(http.ErrAbortHandler) // charged, and the connection breaks
		}
		return false
	})
	var mu sync.Mutex
	from, opened := breaker.Closed, 0
	b := w.quick(breaker.Options{Timeout: 60 * time.Millisecond, ResetTimeout: 20 * time.Millisecond, OnStateChange: func(e breaker.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.From != from {
			t.Errorf("%v after %v", e, from)
		}
		if from = e.To; from == breaker.Open {
			opened++
		}
	}})
	q := w.queue(breaker.QueueOptions{Breaker: b, Concurrency: 4, Attempts: 10_000})
	w.run(q)
	keys := numbered(100)
	var g sync.WaitGroup
	for i := range 10 {
		g.Go(func() {
			for _, key := range keys[10*i : 10*i+10] {
				if _, err := q.Submit(t.Context(), breaker.Request{Key: key, Body: []byte(key)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
	w.awaitSettled(q, keys...)
	mu.Lock()
	defer mu.Unlock()
	if opened == 0 {
		t.Error("the circuit has never opened")
	}
}

// Several workers: none calls for what another has in hand.
func TestSeveralWorkers(t *testing.T) {
	w := newWorld(t)
	w.bank.set(down, nil)
	first := w.queue(breaker.QueueOptions{})
	keys := numbered(60)
	for _, key := range keys {
		w.submit(first, key, key)
	}
	before := w.bank.called()
	w.bank.set(slow(2*time.Millisecond), nil)
	for range 3 {
		w.run(w.queue(breaker.QueueOptions{Concurrency: 3}))
	}
	w.awaitSettled(first, keys...)
	if n := w.bank.called() - before; n != len(keys) {
		t.Errorf("%d calls for %d requests", n, len(keys))
	}
}

func TestParked(t *testing.T) {
	w := newWorld(t)
	var told []string
	q := w.queue(breaker.QueueOptions{Attempts: 3, Parked: func(ctx context.Context, tx pgx.Tx, a breaker.Attempt, reason error) error {
		told = append(told, fmt.Sprint(a.Key, " after ", a.Number, ": ", reason))
		if len(told) == 1 {
			return errDown // stays queued
		}
		_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1, 'parked')", a.Key)
		return err
	}})
	w.bank.set(down, nil)
	badRequest := func(context.Context, breaker.Attempt) ([]byte, error) {
		return nil, breaker.Permanent(errors.New("no amount"))
	}
	q2 := w.queue(breaker.QueueOptions{Call: badRequest})
	if _, err := q2.Submit(t.Context(), breaker.Request{Key: "bad"}); !errors.Is(err, breaker.ErrParked) || !strings.Contains(err.Error(), "no amount") {
		t.Errorf("%v", err)
	}
	if _, err := q2.Submit(t.Context(), breaker.Request{Key: "bad"}); !errors.Is(err, breaker.ErrParked) || !strings.Contains(err.Error(), "no amount") {
		t.Errorf("%v", err)
	}

	w.submit(q, "charge-1", "charge-1")
	stop := w.run(q)
	w.await("it is parked", func() bool { return w.stats(q).Parked == 2 })
	w.must(stop())
	parked, err := q.ListParked(t.Context(), 10)
	w.must(err)
	if len(parked) != 2 || parked[0].Key != "bad" || parked[1].Key != "charge-1" || parked[1].Attempts < 3 || parked[1].Reason == "" || parked[1].ParkedAt.Before(parked[1].StoredAt) {
		t.Errorf("%+v", parked)
	}
	if len(told) != 2 || !strings.HasPrefix(told[0], "charge-1 after 3: ") {
		t.Errorf("told %q", told)
	}
	var n int
	w.must(w.DB.QueryRow(t.Context(), "SELECT count(*) FROM effects WHERE answer = 'parked'").Scan(&n))
	if n != 1 {
		t.Errorf("%d effects", n)
	}
	w.exec("DELETE FROM effects")

	w.bank.set(nil, nil)
	if n, err := q.Resume(t.Context(), "charge-1", "unknown"); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	w.run(q)
	w.awaitSettled(q, "charge-1")
	if n, err := q.Resume(t.Context()); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// Being rejected is no attempt: an outage parks nothing.
func TestRejectionsAreNoAttempts(t *testing.T) {
	w := newWorld(t)
	b := w.quick(breaker.Options{ResetTimeout: time.Hour})
	for range 5 {
		_ = b.Do(t.Context(), fails)
	}
	q := w.queue(breaker.QueueOptions{Breaker: b, Attempts: 1})
	if r := w.submit(q, "charge-1", "charge-1"); !errors.Is(r.Why, breaker.ErrOpen) {
		t.Errorf("%v", r.Why)
	}
	k := newBulkhead(t, breaker.BulkheadOptions{MaxConcurrent: 1})
	release, err := k.Acquire(t.Context())
	w.must(err)
	full := w.queue(breaker.QueueOptions{Breaker: w.quick(breaker.Options{Bulkhead: k}), Attempts: 1})
	w.run(full)
	w.exec("UPDATE breaker_requests SET next_attempt_at = now()")
	w.await("it was rejected thrice", func() bool { return w.stats(full).Rejected >= 3 })
	release()
	w.awaitSettled(full, "charge-1")
}

// What the answer changes on this side fails at first: it is tried again, with the
// same key, and happens once.
func TestDoneFails(t *testing.T) {
	w := newWorld(t)
	var n atomic.Int64
	q := w.queue(breaker.QueueOptions{Done: func(ctx context.Context, tx pgx.Tx, a breaker.Attempt, answer []byte) error {
		if err := effect(ctx, tx, a, answer); err != nil {
			return err
		}
		switch n.Add(1) {
		case 1:
			return errDown
		case 2:
			panic("boom")
		}
		return nil
	}})
	if r := w.submit(q, "charge-1", "charge-1"); r.Status != breaker.Queued || !errors.Is(r.Why, errDown) {
		t.Errorf("%v %v", r.Status, r.Why)
	}
	w.run(q)
	w.awaitSettled(q, "charge-1")
}

// The caller goes away in the middle: the request is stored, so it is made.
func TestCallerGivesUp(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.bank.set(func(rw http.ResponseWriter, r *http.Request, key string) bool {
		cancel()
		return hang(rw, r, key)
	}, nil)
	b := w.quick(breaker.Options{})
	q := w.queue(breaker.QueueOptions{Breaker: b})
	r, err := q.Submit(ctx, breaker.Request{Key: "charge-1", Body: []byte("charge-1")})
	if err != nil || r.Status != breaker.Queued || !errors.Is(r.Why, context.Canceled) {
		t.Errorf("%v, %v", r, err)
	}
	if c := b.Counts(); c.Failures != 0 || c.Excluded != 1 {
		t.Errorf("%+v", c)
	}
	w.bank.set(nil, nil)
	w.run(q)
	w.awaitSettled(q, "charge-1")
}

// A stop lets what has begun end, and begins nothing.
func TestGracefulStop(t *testing.T) {
	w := newWorld(t)
	w.bank.set(down, nil)
	q := w.queue(breaker.QueueOptions{Concurrency: 1, Breaker: w.quick(breaker.Options{VolumeThreshold: 100})})
	for _, key := range numbered(3) {
		w.submit(q, key, key)
	}
	before := w.bank.called()
	began, goOn := make(chan struct{}, 10), make(chan struct{})
	w.bank.set(func(http.ResponseWriter, *http.Request, string) bool { began <- struct{}{}; <-goOn; return false }, nil)
	stop := w.run(q)
	<-began
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	time.AfterFunc(50*time.Millisecond, func() { close(goOn) })
	w.must(<-ended)
	if s := w.stats(q); s.Queued != 2 || s.Done != 1 || w.bank.called() != before+1 {
		t.Errorf("%+v, %d calls", s, w.bank.called()-before)
	}
}

// What takes longer than StopTimeout is broken off, and made again.
func TestStopTimeout(t *testing.T) {
	w := newWorld(t)
	w.bank.set(down, nil)
	q := w.queue(breaker.QueueOptions{StopTimeout: 20 * time.Millisecond, Breaker: w.quick(breaker.Options{Timeout: time.Minute})})
	w.submit(q, "charge-1", "charge-1")
	began := make(chan struct{}, 10)
	w.bank.set(func(rw http.ResponseWriter, r *http.Request, key string) bool {
		began <- struct{}{}
		return hang(rw, r, key)
	}, nil)
	stop := w.run(q)
	<-began
	if err := stop(); !errors.Is(err, breaker.ErrStopTimeout) {
		t.Errorf("%v", err)
	}
	w.bank.set(nil, nil)
	w.run(q) // before the lease is over: the retry was written down
	w.awaitSettled(q, "charge-1")
}

func TestClean(t *testing.T) {
	w := newWorld(t)
	q := w.queue(breaker.QueueOptions{Keep: time.Millisecond, CleanInterval: 10 * time.Millisecond})
	w.submit(q, "charge-1", "charge-1")
	w.exec("INSERT INTO breaker_requests (queue, key, body, state, next_attempt_at, settled_at) VALUES ('payments', 'parked', '', 'parked', now(), now() - interval '1 year')")
	w.run(q)
	count := func() (n int) {
		w.must(w.DB.QueryRow(context.Background(), "SELECT count(*) FROM breaker_requests").Scan(&n))
		return n
	}
	w.await("it is deleted", func() bool { return count() == 1 })
}

func TestRunSaysWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	w.exec("ALTER TABLE breaker_requests DROP COLUMN reason")
	w.exec("ALTER TABLE breaker_requests DROP COLUMN claim")
	q := w.queue(breaker.QueueOptions{})
	if err := q.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "claim") {
		t.Errorf("%v", err)
	}
}

func TestQueueOptions(t *testing.T) {
	w := newWorld(t)
	b := w.quick(breaker.Options{})
	call := pay("")
	for want, o := range map[string]breaker.QueueOptions{
		"Name":     {Breaker: b, Call: call},
		"Breaker":  {Name: "x", Call: call},
		"Call":     {Name: "x", Breaker: b},
		"Timeout":  {Name: "x", Breaker: w.quick(breaker.Options{Timeout: -1}), Call: call},
		"Lease":    {Name: "x", Breaker: b, Call: call, Lease: time.Second},
		"Attempts": {Name: "x", Breaker: b, Call: call, Attempts: -1},
		"MinRetry": {Name: "x", Breaker: b, Call: call, MinRetry: -1},
	} {
		if _, err := breaker.NewQueue(w.DB, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
