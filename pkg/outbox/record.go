package outbox

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// record is what became of an event of the log.
type record struct {
	*Message
	kind    kind
	refusal Refusal // if refused

	written bool // the database knows
	visible bool // its transaction was visible before that
}

type kind int

const (
	sent    kind = iota
	refused      // held from now on
	left         // of an aggregate that is held
)

// record writes down what became of events. Its position in the log is confirmed
// once that is committed: an event is marked, or its aggregate is held. Either
// way the row must be there for all to see: an UPDATE would miss it, and so would
// the one that looks for what is held.
func (s *session) record() error {
	defer close(s.drained)
	outcomes := s.outcomes
	var pending []record
	for outcomes != nil || len(pending) > 0 {
		if len(pending) == 0 {
			select {
			case rec, open := <-outcomes:
				if !open {
					return nil
				}
				pending = append(pending, rec)
			case <-s.r.hard.Done():
				return nil
			}
		}
		var open bool
		if pending, open = s.gather(pending, outcomes); !open {
			outcomes = nil
		}
		if s.r.hard.Err() != nil {
			return nil
		}
		var err error
		if pending, err = s.flush(pending); err != nil {
			go func() {
				for range s.outcomes { // so that publish can end
				}
			}()
			return err
		}
	}
	return nil
}

// recordInterval is how long outcomes are gathered before they are written:
// many cost little more than one.
const recordInterval = 20 * time.Millisecond

// gather adds to pending what comes within recordInterval, up to a batch. It
// reports whether more can come.
func (s *session) gather(pending []record, outcomes <-chan record) (_ []record, open bool) {
	timer := time.NewTimer(recordInterval)
	defer timer.Stop()
	if outcomes == nil { // rows that are not visible yet are so in a moment
		timer.Reset(time.Millisecond)
	}
	for len(pending) < s.r.o.Batch {
		select {
		case rec, open := <-outcomes:
			if !open {
				return pending, false
			}
			pending = append(pending, rec)
		case <-timer.C:
			return pending, outcomes != nil
		case <-s.r.hard.Done():
			return pending, outcomes != nil
		}
	}
	return pending, outcomes != nil
}

const visibleSQL = `SELECT x FROM unnest($1::bigint[]) AS x, ` + topSQL + ` WHERE ` + visible

// flush writes records down and returns those that are not done yet.
func (s *session) flush(records []record) (rest []record, err error) {
	if len(records) == 0 {
		return nil, nil
	}
	marked, err := s.write(records)
	if err != nil {
		return nil, err
	}
	var xids []int64
	for i := range records {
		rec := &records[i]
		rec.written = rec.kind != sent || marked[rec.Seq] || rec.visible // visible, and yet no row: it is gone
		if !rec.written || rec.kind != sent {
			xids = append(xids, int64(rec.txn.xid))
		}
	}
	seen, err := s.seen(xids)
	if err != nil {
		return nil, err
	}
	var done []*txn
	for _, rec := range records {
		if rec.kind != sent || !rec.written {
			rec.visible = seen[int64(rec.txn.xid)]
		}
		switch {
		case rec.kind == sent && rec.written:
			done = append(done, rec.txn)
		case rec.kind != sent && rec.visible:
			done = append(done, rec.txn)
			s.holds.settle(rec.AggregateID)
		default:
			rest = append(rest, rec)
		}
	}
	s.progress.recorded(done...)
	return rest, nil
}

// write marks what was sent and holds what was refused, all or nothing, and
// returns which rows it marked.
func (s *session) write(records []record) (marked map[int64]bool, err error) {
	var published, refusedOnes []*Message
	var refusals []Refusal
	for _, rec := range records {
		switch {
		case rec.kind == sent:
			published = append(published, rec.Message)
		case rec.kind == refused && !rec.written:
			refusedOnes = append(refusedOnes, rec.Message)
			refusals = append(refusals, rec.refusal)
		}
	}
	marked = make(map[int64]bool, len(published))
	var statements pgx.Batch
	// Not to wait for the disk: see lockSQL.
	statements.Queue("SELECT set_config('synchronous_commit', 'off', true)")
	s.r.queueMarks(&statements, published, refusedOnes, refusals)
	if statements.Len() == 1 {
		return marked, nil
	}
	if len(published) > 0 {
		mark := statements.QueuedQueries[1]
		mark.SQL += " RETURNING seq"
		mark.Query(func(rows pgx.Rows) error {
			seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
			for _, seq := range seqs {
				marked[seq] = true
			}
			return err
		})
	}
	op, cancel := s.r.operation()
	defer cancel()
	if err := s.r.pool.SendBatch(op, &statements).Close(); err != nil {
		return nil, fmt.Errorf("outbox: record %d published and %d refused events: %w", len(published), len(refusedOnes), err)
	}
	return marked, nil
}

// seen returns which transactions of the log are visible.
func (s *session) seen(xids []int64) (map[int64]bool, error) {
	if len(xids) == 0 {
		return nil, nil
	}
	op, cancel := s.r.operation()
	defer cancel()
	rows, err := s.r.pool.Query(op, visibleSQL, xids)
	if err != nil {
		return nil, fmt.Errorf("outbox: ask which transactions are visible: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("outbox: ask which transactions are visible: %w", err)
	}
	seen := make(map[int64]bool, len(found))
	for _, xid := range found {
		seen[xid] = true
	}
	return seen, nil
}
