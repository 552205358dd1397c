package breaker

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Counts are how calls ended.
type Counts struct {
	// Requests is how many calls began: those that have ended, and those under
	// way.
	Requests uint32
	// Successes and Failures are how many of them count as such, and Excluded how
	// many count as neither: their callers gave up.
	Successes, Failures, Excluded uint32
}

// FailureRate is the share of failures among the calls that count, in percent, 0
// if there are none.
func (c Counts) FailureRate() float64 {
	if c.Failures == 0 {
		return 0
	}
	return 100 * float64(c.Failures) / float64(c.Failures+c.Successes)
}

func countsOf(c gobreaker.Counts) Counts {
	return Counts{Requests: c.Requests, Successes: c.TotalSuccesses, Failures: c.TotalFailures, Excluded: c.TotalExclusions}
}

// Event is a transition of a circuit.
type Event struct {
	Name     string // of the breaker
	From, To State
	At       time.Time
	// Counts are what has caused it: the calls of the rolling window if it was
	// closed, the probes that have ended if it was half-open. An open circuit
	// becomes half-open because of time alone: then they are zero.
	Counts Counts
}

// String returns, for example, "payments: closed → open (4 of 5 failed)".
func (e Event) String() string {
	s := fmt.Sprintf("%s: %v → %v", e.Name, e.From, e.To)
	if n := e.Counts.Successes + e.Counts.Failures; n > 0 {
		s += fmt.Sprintf(" (%d of %d failed)", e.Counts.Failures, n)
	}
	return s
}

// The next four are called by gobreaker, under its lock.

func (b *Breaker) readyToTrip(c gobreaker.Counts) bool {
	// Not c.Requests, which holds those under way: of a hundred calls to a
	// service that hangs the first five to time out would be 5 %.
	ended := uint64(c.TotalSuccesses) + uint64(c.TotalFailures)
	if ended < uint64(b.o.VolumeThreshold) || 100*uint64(c.TotalFailures) < uint64(b.o.ErrorThresholdPercentage)*ended {
		return false
	}
	b.tripped = countsOf(c)
	return true
}

func (b *Breaker) changed(name string, from, to State) {
	e := Event{Name: name, From: from, To: to, At: time.Now()}
	switch from {
	case Closed:
		e.Counts = b.tripped
	case HalfOpen:
		// gobreaker has cleared its own by now.
		e.Counts = b.probed
	}
	b.halfOpen, b.probed = to == HalfOpen, Counts{}
	b.events.add(e)
}

func (b *Breaker) isExcluded(verdict error) bool {
	if verdict != errExcluded {
		return false
	}
	if b.halfOpen {
		b.probed.Requests++
		b.probed.Excluded++
	}
	return true
}

func (b *Breaker) isSuccessful(verdict error) bool {
	if b.halfOpen {
		b.probed.Requests++
		if verdict == nil {
			b.probed.Successes++
		} else {
			b.probed.Failures++
		}
	}
	return verdict == nil
}

// tell is called without a lock.
func (b *Breaker) tell(e Event) {
	level := slog.LevelInfo
	if e.To == Open {
		level = slog.LevelWarn
	}
	b.o.Logger.Log(context.Background(), level, "breaker: the circuit is "+e.To.String(), "breaker", e.Name, "from", e.From.String(),
		"successes", e.Counts.Successes, "failures", e.Counts.Failures, "excluded", e.Counts.Excluded)
	if b.o.OnStateChange == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			b.o.Logger.Error("breaker: Options.OnStateChange panicked", "breaker", e.Name, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	b.o.OnStateChange(e)
}

// events hands events over in their order, one at a time, without a goroutine of
// its own: whoever comes by delivers what is there, unless somebody is at it, who
// then sees to that too.
type events struct {
	tell    func(Event)
	pending atomic.Bool // there may be some: spares the lock

	mu      sync.Mutex
	waiting []Event
	busy    bool
}

// add is called under the lock of the breaker, which is what orders the events.
func (q *events) add(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, e)
	q.pending.Store(true)
}

func (q *events) deliver() {
	if q.pending.Load() {
		q.deliverAll()
	}
}

func (q *events) deliverAll() {
	for {
		e, ok := q.next()
		if !ok {
			return
		}
		q.hand(e)
	}
}

func (q *events) next() (e Event, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy || len(q.waiting) == 0 {
		return e, false
	}
	e, q.waiting, q.busy = q.waiting[0], q.waiting[1:], true
	return e, true
}

func (q *events) hand(e Event) {
	defer func() { // whatever tell does
		q.mu.Lock()
		defer q.mu.Unlock()
		q.busy = false
		q.pending.Store(len(q.waiting) > 0)
	}()
	q.tell(e)
}
