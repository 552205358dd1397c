package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// visible tells whether a transaction of the log is over for whoever looks at
// the tables: the log knows of a commit a moment before they do. The log has
// only the lower 32 bits of its number x.
const visible = `pg_visible_in_snapshot((top - ((top - x + 2147483648) & 4294967295) + 2147483648)::text::xid8, pg_current_snapshot())`
const topSQL = `(SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS top) AS snapshot`

// Of those events, the ones that were published or deleted. One statement sees
// one state of the database, so a row that is missing although its transaction
// is visible is gone.
const knownSQL = `
SELECT e.seq
FROM unnest($1::bigint[], $2::bigint[]) AS e (seq, x)
     LEFT JOIN outbox o ON o.seq = e.seq, ` + topSQL + `
WHERE o.published_at IS NOT NULL OR o.seq IS NULL AND ` + visible

// check passes messages on from s.captured to s.checked, without those that
// the table knows to be published: after a restart the log tells again what was
// not confirmed.
func (s *session) check(ctx context.Context) error {
	defer close(s.checked)
	for m := range s.captured {
		if m.txn.final >= s.below {
			if !s.forward(ctx, m) {
				return nil
			}
			continue
		}
		messages := []*Message{m}
	gather:
		for len(messages) < s.r.o.Batch {
			select {
			case m, open := <-s.captured:
				if !open {
					break gather
				}
				messages = append(messages, m)
			default:
				break gather
			}
		}
		known, err := s.known(messages)
		if err != nil {
			return err
		}
		for _, m := range messages {
			if known[m.Seq] {
				s.progress.recorded(m.txn)
			} else if !s.forward(ctx, m) {
				return nil
			}
		}
	}
	return nil
}

func (s *session) forward(ctx context.Context, m *Message) bool {
	select {
	case s.checked <- m:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *session) known(messages []*Message) (map[int64]bool, error) {
	op, cancel := s.r.operation()
	defer cancel()
	seqs, xids := make([]int64, len(messages)), make([]int64, len(messages))
	for i, m := range messages {
		seqs[i], xids[i] = m.Seq, int64(m.txn.xid)
	}
	rows, err := s.r.pool.Query(op, knownSQL, seqs, xids)
	if err != nil {
		return nil, fmt.Errorf("outbox: look up which events are published: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("outbox: look up which events are published: %w", err)
	}
	known := make(map[int64]bool, len(found))
	for _, seq := range found {
		known[seq] = true
	}
	return known, nil
}

// publish publishes what comes out of s.checked, until ctx ends or something
// fails. Then it waits for what is on the way.
func (s *session) publish(ctx context.Context) error {
	defer close(s.outcomes)
	w, err := s.r.openWindow(ctx)
	if err != nil {
		return err
	}
	err = s.publishOver(ctx, w)
	if err != nil {
		go w.close() // may hang
		return err
	}
	w.close()
	return nil
}

func (s *session) publishOver(ctx context.Context, w *window) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	in, stop, waiting := s.checked, ctx.Done(), 0
	for {
		if err := w.pump(); err != nil {
			return s.blame(w, err)
		}
		if in == nil && w.idle() {
			return nil
		}
		from := in
		if waiting >= 4*s.r.o.Batch {
			from = nil // enough in memory
		}
		select {
		case m, open := <-from:
			if !open {
				in = nil
			} else if s.take(w, m) {
				waiting++
			}
		case c, open := <-w.confirms:
			o, err := w.settle(c, open)
			if err != nil {
				return s.blame(w, err)
			}
			waiting -= 1 + len(o.dropped)
			if o.refusal != "" {
				s.refuse(o)
			} else {
				s.r.published(o.Message)
				s.outcomes <- record{Message: o.Message, kind: sent}
			}
		case <-stop:
			in, stop = nil, nil
			w.forget()
		case <-tick.C:
			if err := w.overdue(); err != nil {
				return err
			}
		}
	}
}

// take gives a message to the window, unless there is nothing to publish or it
// must not be.
func (s *session) take(w *window, m *Message) bool {
	switch s.holds.route(m) {
	case toLeave:
		s.outcomes <- record{Message: m, kind: left}
		return false
	case toForget:
		s.progress.recorded(m.txn)
		return false
	}
	if reason := unpublishable(m); reason != "" {
		s.refuse(outcome{Message: m, refusal: reason})
		return false
	}
	w.add(m)
	return true
}

// blame books the message because of which the broker closed the channel, if
// that is certain.
func (s *session) blame(w *window, err error) error {
	if m := w.suspect(err); m != nil {
		s.refuse(outcome{Message: m, refusal: err.Error(), dropped: w.behind[m.AggregateID]})
	}
	return err
}

// refuse holds the aggregate of a message, and leaves the rest of it that is
// here to sweep.
func (s *session) refuse(o outcome) {
	s.holds.hold(o.Message)
	s.outcomes <- record{Message: o.Message, kind: refused, refusal: s.r.refuse(o)}
	for _, m := range o.dropped {
		s.holds.route(m) // held by now
		s.outcomes <- record{Message: m, kind: left}
	}
}
