package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/internal/backoff"
)

// holds are the aggregates that a session of CDC holds: it leaves their events
// in the table, where sweep finds them. For each it counts the events that it
// has left, or seen refused, and that are not known to be visible in the table.
type holds struct {
	mu   sync.Mutex
	owed map[string]int

	// swept are events that were published out of the table. The log may bring
	// them yet, but not behind sweptTo.
	swept   map[int64]bool
	sweptTo pglogrepl.LSN
}

func (h *holds) load(aggregates []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.swept = map[int64]bool{}
	h.owed = make(map[string]int, len(aggregates))
	for _, a := range aggregates {
		h.owed[a] = 0
	}
}

// hold holds the aggregate of an event that was refused.
func (h *holds) hold(m *Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.owed[m.AggregateID]++
}

// route says what to do with an event that the log has brought: publish it,
// leave it because its aggregate is held, or forget it because it was published
// out of the table. It counts what is left.
func (h *holds) route(m *Message) route {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, held := h.owed[m.AggregateID]; held {
		h.owed[m.AggregateID]++
		return toLeave
	}
	if h.swept[m.Seq] {
		delete(h.swept, m.Seq)
		return toForget
	}
	return toPublish
}

type route int

const (
	toPublish route = iota
	toLeave
	toForget
)

// settle takes note that an event that was counted is visible.
func (h *holds) settle(aggregate string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.owed[aggregate]--
}

// some returns at most n aggregates that are held, any of them.
func (h *holds) some(n int) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var some []string
	for a := range h.owed {
		if len(some) == n {
			break
		}
		some = append(some, a)
	}
	return some
}

// sweep tries the events of held aggregates again when it is time to, out of
// the table, and releases an aggregate when none is left.
func (s *session) sweep(ctx context.Context) error {
	var pub publisher
	defer pub.close()
	for backoff.Sleep(ctx, s.r.o.MinRetry) {
		aggregates := s.holds.some(1000)
		if len(aggregates) == 0 || s.r.link.Blocked() {
			continue
		}
		if err := s.sweepOnce(ctx, &pub, aggregates); err != nil && !errors.Is(err, errBusy) {
			return err
		}
	}
	return nil
}

func (s *session) sweepOnce(ctx context.Context, pub *publisher, aggregates []string) error {
	w, err := pub.window(ctx, s.r)
	if err != nil {
		return err
	}
	b, err := s.r.begin(ctx, 0, 1, heldSQL, aggregates)
	if err != nil {
		return err
	}
	defer b.end()
	err = pub.done(b.publish(ctx, w))
	return errors.Join(err, s.release(b, aggregates))
}

// Statements of one transaction see what those before them did, and what was
// committed meanwhile.
const freeSQL = `
WITH free AS (
    SELECT aggregate FROM unnest($1::text[]) AS aggregate
    WHERE NOT EXISTS (SELECT FROM outbox WHERE aggregate_id = aggregate AND published_at IS NULL)
), gone AS (
    DELETE FROM outbox_held USING free WHERE aggregate_id = aggregate
)
SELECT aggregate FROM free`

// release commits the batch and releases the aggregates of which nothing is
// left in the table, unless an event of theirs may be there that cannot be seen
// yet. Nothing is left to the table meanwhile: an event of a held aggregate that
// the log brings in this moment waits, and is published if its aggregate has
// been released.
func (s *session) release(b *batch, aggregates []string) error {
	s.holds.mu.Lock()
	defer s.holds.mu.Unlock()
	var ripe []string
	for _, a := range aggregates {
		if s.holds.owed[a] == 0 {
			ripe = append(ripe, a)
		}
	}
	var free []string
	var end pglogrepl.LSN
	var statements pgx.Batch
	s.r.queueMarks(&statements, b.sent, b.refused, b.refusals)
	statements.Queue(freeSQL, ripe).Query(func(rows pgx.Rows) (err error) {
		free, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	statements.Queue("SELECT pg_current_wal_insert_lsn()::text").QueryRow(func(row pgx.Row) error { return row.Scan(&end) })
	statements.Queue("COMMIT")
	op, cancel := s.r.operation()
	defer cancel()
	if err := b.conn.SendBatch(op, &statements).Close(); err != nil {
		return fmt.Errorf("outbox: record what became of %d held events: %w", len(b.messages), err)
	}
	if s.progress.confirmed() >= s.holds.sweptTo {
		clear(s.holds.swept) // the log has come so far
	}
	for _, m := range b.sent {
		s.holds.swept[m.Seq] = true
		s.holds.sweptTo = end
	}
	for _, a := range free {
		delete(s.holds.owed, a)
	}
	return nil
}
