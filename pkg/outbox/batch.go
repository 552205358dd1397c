package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// batch is one transaction: it takes the locks of its slots, reads pending
// events, publishes them, marks those that the broker has confirmed, and
// commits. Whoever holds the lock of a slot is the only one to publish events of
// its aggregates. The lock cannot outlive the work: when the process dies or the
// connection breaks, the server gives it back.
type batch struct {
	r    *Relay
	conn *pgxpool.Conn

	quiet    bool // see lockSQL
	messages []*Message
	sent     []*Message
	refused  []*Message
	refusals []Refusal // one for each of refused
	release  []string  // held aggregates that may go on
}

// errBusy tells that another relay works on some of the same slots.
var errBusy = errors.New("outbox: another relay is at work")

// A partition is a set of slots, so that relays with different numbers of
// partitions exclude each other where they overlap.
//
// The second column tells that no transaction is committing events in this
// moment that might rely on the NOTIFY of another, see the trigger. It need not
// hold longer than that: the rows are read after it.
//
// Then come settings. The planner's figures of a table that fills and empties
// all the time are never right: left alone it reads and sorts the whole backlog
// for each batch, or compiles the query. So it walks along the index. And the
// commit does not wait for the disk: a mark that a crash of the server takes
// back is only a duplicate more.
const lockSQL = `
SELECT bool_and(pg_try_advisory_xact_lock(hashtext('outbox.relay.' || 'outbox'::regclass::oid), slot)),
       (SELECT CASE WHEN pg_try_advisory_lock(hashtext('outbox.commit'), 'outbox'::regclass::oid::integer)
                    THEN pg_advisory_unlock(hashtext('outbox.commit'), 'outbox'::regclass::oid::integer)
                    ELSE false END),
       (SELECT set_config('idle_in_transaction_session_timeout', $3::text, true)
            || set_config('enable_seqscan', 'off', true) || set_config('enable_bitmapscan', 'off', true)
            || set_config('enable_sort', 'off', true) || set_config('jit', 'off', true)
            || set_config('synchronous_commit', 'off', true))
FROM generate_series($1::integer, 63, $2::integer) AS slot`

// pendingSQL reads what is pending and not held. The looks at outbox_held are
// scalar subqueries because a join might be done in another order, and are spared
// when nothing is held. The payloads of one batch are limited to 16 MiB, as they
// are stored.
const pendingSQL = pendingHead + pendingTail

// heldSQL reads, of some aggregates that are held, what is due.
const heldSQL = pendingHead + ` AND o.aggregate_id = ANY($4::text[])` + pendingTail

const pendingHead = `
SELECT seq, message_id, aggregate_id, type, payload::text, created_at, attempts
FROM (SELECT *, sum(size) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - size AS before
      FROM (SELECT o.*, pg_column_size(o.payload) AS size,
                   CASE WHEN EXISTS (SELECT FROM outbox_held)
                        THEN coalesce((SELECT h.attempts FROM outbox_held h WHERE h.aggregate_id = o.aggregate_id), 0)
                        ELSE 0 END AS attempts
            FROM outbox o
            WHERE o.published_at IS NULL
              AND (hashtext(o.aggregate_id) & 63) % $2::integer = $1::integer
              AND (NOT EXISTS (SELECT FROM outbox_held)
                   OR coalesce((SELECT h.until FROM outbox_held h WHERE h.aggregate_id = o.aggregate_id), '-infinity') <= now())`
const pendingTail = `
            ORDER BY o.seq
            LIMIT $3::integer) AS pending) AS measured
WHERE before < 16777216
ORDER BY seq`

const (
	markSQL    = `UPDATE outbox SET published_at = clock_timestamp() WHERE seq = ANY($1)`
	deleteSQL  = `DELETE FROM outbox WHERE seq = ANY($1)`
	releaseSQL = `DELETE FROM outbox_held WHERE aggregate_id = ANY($1)`
	holdSQL    = `
INSERT INTO outbox_held (aggregate_id, seq, reason, attempts, until)
SELECT aggregate_id, seq, reason, attempts, clock_timestamp() + ms * interval '1 ms'
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::integer[], $5::bigint[]) AS h (aggregate_id, seq, reason, attempts, ms)
ON CONFLICT (aggregate_id) DO UPDATE
SET seq = excluded.seq, reason = excluded.reason, attempts = excluded.attempts, until = excluded.until`
)

// begin starts a batch with what query selects for a partition, one of so many.
// It returns errBusy if another relay has the lock. The caller ends the batch.
func (r *Relay) begin(ctx context.Context, partition, of int, query string, args ...any) (*batch, error) {
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("outbox: connect to the database: %w", err)
	}
	b := &batch{r: r, conn: conn}
	if err := b.read(partition, of, query, args); err != nil {
		b.end()
		return nil, err
	}
	return b, nil
}

func (b *batch) read(partition, of int, query string, args []any) error {
	op, cancel := b.r.operation()
	defer cancel()
	// All in one round trip. Each statement sees what was committed before it,
	// so the rows are read with the lock held.
	var questions pgx.Batch
	questions.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	questions.Queue(lockSQL, partition, of, strconv.FormatInt(3*b.r.o.Timeout.Milliseconds(), 10))
	questions.Queue(query, append([]any{partition, of, b.r.o.Batch}, args...)...)
	answers := b.conn.SendBatch(op, &questions)
	defer answers.Close()
	if _, err := answers.Exec(); err != nil {
		return fmt.Errorf("outbox: begin a batch: %w", err)
	}
	var locked bool
	if err := answers.QueryRow().Scan(&locked, &b.quiet, nil); err != nil {
		return fmt.Errorf("outbox: lock the partition: %w", err)
	}
	rows, err := answers.Query()
	if err != nil {
		return fmt.Errorf("outbox: read pending events: %w", err)
	}
	b.messages, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Message, error) {
		var m Message
		return &m, row.Scan(&m.Seq, (*[16]byte)(&m.ID), &m.AggregateID, &m.Type, &m.Payload, &m.CreatedAt, &m.attempts)
	})
	if err != nil {
		return fmt.Errorf("outbox: read pending events: %w", err)
	}
	if !locked {
		return errBusy
	}
	return nil
}

// end gives the connection back. Without a commit before, the transaction is
// rolled back.
func (b *batch) end() {
	if b.conn.Conn().PgConn().TxStatus() == 'T' {
		op, cancel := b.r.operation()
		defer cancel()
		_, _ = b.conn.Exec(op, "ROLLBACK") // if it fails the pool closes the connection
	}
	b.conn.Release()
}

// publish publishes the batch over w, until all is confirmed or refused, ctx
// ends, or the batch has taken Timeout. What is on the way is waited for in any
// case. If it returns an error, what was confirmed before can still be
// committed, and w is of no more use.
func (b *batch) publish(ctx context.Context, w *window) error {
	refusedOnes := map[string]bool{}
	for _, m := range b.messages {
		if refusedOnes[m.AggregateID] {
			continue
		}
		if reason := unpublishable(m); reason != "" {
			refusedOnes[m.AggregateID] = true
			b.settle(outcome{Message: m, refusal: reason})
			continue
		}
		w.add(m)
	}
	started, stop := time.Now(), ctx.Done()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := w.pump(); err != nil {
			return b.broken(w, err)
		}
		if w.idle() {
			return nil
		}
		select {
		case c, open := <-w.confirms:
			for more := true; more; { // as many as are there
				o, err := w.settle(c, open)
				if err != nil {
					return b.broken(w, err)
				}
				b.settle(o)
				if more = len(w.confirms) > 0; more {
					c, open = <-w.confirms
				}
			}
		case <-stop:
			stop = nil
			w.forget()
		case <-tick.C:
			if err := w.overdue(); err != nil {
				return err
			}
			if w.link.Blocked() || time.Since(started) > b.r.o.Timeout {
				w.forget()
			}
		}
	}
}

// broken looks for the one to blame when the channel was closed.
func (b *batch) broken(w *window, err error) error {
	if m := w.suspect(err); m != nil {
		b.settle(outcome{Message: m, refusal: err.Error()})
	}
	return err
}

// settle books what became of a message.
func (b *batch) settle(o outcome) {
	if o.refusal == "" {
		b.sent = append(b.sent, o.Message)
		if o.attempts > 0 {
			b.release = append(b.release, o.AggregateID)
		}
		b.r.published(o.Message)
		return
	}
	for _, m := range b.sent {
		if m.AggregateID == o.AggregateID {
			o.attempts = 0 // those were another event's
		}
	}
	b.refused = append(b.refused, o.Message)
	b.refusals = append(b.refusals, b.r.refuse(o))
}

// commit marks or deletes what was published, holds what was refused, and
// commits. If it returns an error, all of the batch may be published again.
func (b *batch) commit() error {
	op, cancel := b.r.operation()
	defer cancel()
	var statements pgx.Batch
	if len(b.release) > 0 {
		statements.Queue(releaseSQL, b.release)
	}
	b.r.queueMarks(&statements, b.sent, b.refused, b.refusals)
	if statements.Len() == 0 {
		return nil
	}
	statements.Queue("COMMIT")
	if err := b.conn.SendBatch(op, &statements).Close(); err != nil {
		return fmt.Errorf("outbox: mark %d published events (they will be published again): %w", len(b.sent), err)
	}
	return nil
}

// queueMarks queues the statements that record what became of messages.
func (r *Relay) queueMarks(statements *pgx.Batch, sent, refused []*Message, refusals []Refusal) {
	if len(sent) > 0 {
		seqs := make([]int64, len(sent))
		for i, m := range sent {
			seqs[i] = m.Seq
		}
		q := statements.Queue(markSQL, seqs)
		if r.o.Delete {
			q.SQL = deleteSQL
		}
	}
	if len(refused) > 0 {
		var aggregates, reasons []string
		var seqs, waits []int64
		var attempts []int32
		once := map[string]bool{} // with Pipeline several may be refused
		for i, m := range refused {
			if once[m.AggregateID] {
				continue
			}
			once[m.AggregateID] = true
			aggregates, seqs, reasons = append(aggregates, m.AggregateID), append(seqs, m.Seq), append(reasons, refusals[i].Reason)
			attempts, waits = append(attempts, int32(refusals[i].Attempts)), append(waits, refusals[i].Wait.Milliseconds())
		}
		statements.Queue(holdSQL, aggregates, seqs, reasons, attempts, waits)
	}
}

// unpublishable says why AMQP cannot express a message, if so.
func unpublishable(m *Message) string {
	if len(m.Type) > maxType {
		return fmt.Sprintf("the type is %d bytes long, a routing key has at most %d", len(m.Type), maxType)
	}
	return ""
}
