package inbox

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// counts are what a consumer has done since it was made.
type counts struct {
	handled, duplicates, redelivered, retried, parked, failed atomic.Uint64
}

// Stats are the figures to watch.
type Stats struct {
	// Lag is the age of the oldest message in hand, 0 if there is none: since its
	// timestamp, which AMQP has in whole seconds, or since it arrived if it has
	// none. It grows when the consumer does not keep up, and when it is stuck. This
	// is the one to alert on.
	Lag time.Duration
	// InFlight is how many messages are in hand: delivered and not settled.
	InFlight int
	// Waiting is how many messages of this consumer are in inbox_parked.
	Waiting int64

	// Handled counts the messages whose effects were committed, Duplicates those
	// that had been handled before, Redelivered the deliveries that the broker had
	// tried before, Retried the failures of messages after which they were tried
	// again, Parked the messages that were parked, and Failed the errors that were
	// no message's fault: all since this consumer was made. A message counts as a
	// duplicate too when its commit was not known to have succeeded, and had.
	// Dialled counts the connections to the broker that it made.
	Handled, Duplicates, Redelivered, Retried, Parked, Failed, Dialled uint64
	// Blocked tells that the broker reads nothing from the connection, acks
	// included: something publishes over it, and memory or disk is short.
	Blocked bool
	// LastError is the last error counted as Failed, and LastErrorAt when it was.
	LastError   error
	LastErrorAt time.Time
}

// Stats reads Waiting from the database; the rest is this consumer's own. It may be
// called whether the consumer runs or not.
func (c *Consumer) Stats(ctx context.Context) (Stats, error) {
	s := Stats{
		Handled:     c.counts.handled.Load(),
		Duplicates:  c.counts.duplicates.Load(),
		Redelivered: c.counts.redelivered.Load(),
		Retried:     c.counts.retried.Load(),
		Parked:      c.counts.parked.Load(),
		Failed:      c.counts.failed.Load(),
		Dialled:     c.link.Dialled(),
		Blocked:     c.link.Blocked(),
	}
	s.InFlight, s.Lag = c.hand.look()
	s.LastErrorAt, s.LastError = c.last.get()
	err := c.pool.QueryRow(ctx, "SELECT count(*) FROM inbox_parked WHERE consumer = $1", c.o.Consumer).Scan(&s.Waiting)
	if err != nil {
		return Stats{}, fmt.Errorf("inbox: count the parked messages: %w", err)
	}
	return s, nil
}

// hand is the messages in hand.
type hand struct {
	mu    sync.Mutex
	items map[*item]bool
}

func (h *hand) add(it *item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.items == nil {
		h.items = map[*item]bool{}
	}
	h.items[it] = true
}

func (h *hand) remove(it *item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.items, it)
}

func (h *hand) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.items)
}

func (h *hand) look() (n int, oldest time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for it := range h.items {
		oldest = max(oldest, it.age())
	}
	return len(h.items), oldest
}

// lastError is an error and when it was.
type lastError struct {
	mu  sync.Mutex
	err error
	at  time.Time
}

func (l *lastError) set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err, l.at = err, time.Now()
}

func (l *lastError) get() (at time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at, l.err
}
