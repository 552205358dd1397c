package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/pkg/internal/backoff"
)

// worker works on a batch of messages until something has become of each.
type worker struct {
	c    *Consumer
	hard context.Context
	// held are lanes with a message that is to be tried again. What stands behind
	// it waits.
	held    map[*lane]bool
	results []result
	stalled error // the last failure that was no message's fault
	broken  error // why it is of no use to go on

	replays int64 // the row of inbox_parked that is replayed
}

// result is what has become of a message.
type result struct {
	*item
	outcome outcome
	wait    time.Duration // before it is tried again
}

type outcome int

const (
	handled outcome = iota
	duplicate
	parked     // it is in inbox_parked
	rejectable // it is to be rejected
	again      // it is to be tried again
	untouched  // nothing has been done with it
)

func (c *Consumer) newWorker(hard context.Context) *worker {
	return &worker{c: c, hard: hard, held: map[*lane]bool{}}
}

// work handles a batch.
func (w *worker) work(items []*item) {
	var valid []*item
	for _, it := range items {
		if it.invalid != nil {
			w.park(it, it.invalid)
		} else {
			valid = append(valid, it)
		}
	}
	if w.c.o.Before != nil {
		valid = w.before(valid)
	}
	w.run(valid)
}

// run handles messages in one transaction, and if that fails in several: what
// stands before the one that failed, that one, what stands behind it. Only what
// fails alone counts as failed, for in a batch it may have failed because of what
// others did. If none is known to have failed, the halves are tried.
func (w *worker) run(items []*item) {
	items = w.allowed(items)
	if len(items) == 0 {
		return
	}
	f := w.transact(items)
	n := len(items)
	switch {
	case f == nil:
	case w.hard.Err() != nil:
		w.add(untouched, items...)
	case f.cause == broken:
		w.broken = f.err
		w.add(untouched, items...)
	case f.cause == lost:
		w.stall(f.err, items...)
	case n > 1 && f.cause == fault && f.at >= 0:
		w.c.log.Debug("inbox: a batch is split", "messages", n, "message_id", items[f.at].ID, "error", f.err)
		w.run(items[:f.at])
		w.run(items[f.at : f.at+1])
		w.run(items[f.at+1:])
	case n > 1:
		w.c.log.Debug("inbox: a batch is halved", "messages", n, "error", f.err)
		w.run(items[:n/2])
		w.run(items[n/2:])
	case f.cause == conflict:
		w.stall(f.err, items...)
	default:
		w.fail(items[0], f.err)
	}
}

// allowed leaves out what has to wait.
func (w *worker) allowed(items []*item) (rest []*item) {
	for _, it := range items {
		if w.held[it.lane] || w.broken != nil || w.hard.Err() != nil {
			w.add(untouched, it)
		} else {
			rest = append(rest, it)
		}
	}
	return rest
}

func (w *worker) add(o outcome, items ...*item) {
	for _, it := range items {
		w.results = append(w.results, result{item: it, outcome: o})
	}
}

// failure says why a transaction failed, and at which of its messages, or -1.
type failure struct {
	err   error
	cause cause
	at    int
}

const (
	firstSQL = `SELECT f.first, EXISTS (SELECT FROM inbox_parked p WHERE p.consumer = $1 AND p.message_id = f.first)
FROM inbox_first($1, $2::text[]) AS f (first)`
	unparkSQL = `DELETE FROM inbox_parked WHERE consumer = $1 AND message_id = ANY($2::text[]) OR id = $3`
)

// transact handles messages in one transaction.
func (w *worker) transact(items []*item) *failure {
	conn, err := w.acquire()
	if err != nil {
		return &failure{ours("inbox: connect to the database: %w", err), lost, -1}
	}
	defer conn.Release() // which closes it if it is not as it was
	at, late, err := w.transactOver(conn.Conn(), items)
	if err == nil {
		return nil
	}
	f := &failure{err, causeOf(err, conn.Conn().IsClosed(), late), at}
	if conn.Conn().PgConn().TxStatus() != 'I' {
		op, cancel := w.operation()
		defer cancel()
		_, _ = conn.Exec(op, "ROLLBACK")
	}
	return f
}

func (w *worker) transactOver(conn *pgx.Conn, items []*item) (at int, late bool, err error) {
	op, cancel := w.operation()
	defer cancel()
	tx, err := conn.BeginTx(op, pgx.TxOptions{BeginQuery: w.c.begin})
	if err != nil {
		return -1, false, ours("inbox: begin a transaction: %w", err)
	}
	first, err := w.first(op, tx, items)
	if err != nil {
		return -1, false, ours("inbox: book %d messages: %w", len(items), err)
	}
	unpark, done := []string{}, map[string]bool{} // a message may be in the batch twice
	var fresh []Delivery                          // what the handler is to see
	var places []int
	for i, it := range items {
		wasParked, isFirst := first[it.ID]
		if !isFirst || done[it.ID] {
			continue
		}
		done[it.ID] = true
		if wasParked {
			unpark = append(unpark, it.ID)
		}
		fresh, places = append(fresh, it.Delivery), append(places, i)
	}
	if at, late, err := w.handleAll(conn, tx, fresh); err != nil {
		if at >= 0 {
			at = places[at]
		}
		return at, late, err
	}
	op, cancel = w.operation()
	defer cancel()
	if len(unpark) > 0 || w.replays != 0 {
		if _, err := tx.Exec(op, unparkSQL, w.c.o.Consumer, unpark, w.replays); err != nil {
			return -1, false, ours("inbox: forget that messages were parked: %w", err)
		}
	}
	if err := tx.Commit(op); err != nil {
		return -1, false, fmt.Errorf("inbox: commit the effects of %d messages: %w", len(items), err)
	}
	for _, it := range items {
		if _, isFirst := first[it.ID]; isFirst {
			w.handled(it)
			delete(first, it.ID)
		} else {
			w.duplicate(it)
		}
	}
	return -1, false, nil
}

// first books the messages and returns the IDs of those that were not handled
// before, and whether they are in inbox_parked.
func (w *worker) first(op context.Context, tx pgx.Tx, items []*item) (map[string]bool, error) {
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.ID
	}
	first := make(map[string]bool, len(items))
	rows, err := tx.Query(op, firstSQL, w.c.o.Consumer, ids)
	if err != nil {
		return nil, err
	}
	var id string
	var wasParked bool
	_, err = pgx.ForEachRow(rows, []any{&id, &wasParked}, func() error { first[id] = wasParked; return nil })
	return first, err
}

// handleAll calls the handler for messages that are new. When it fails, at is the
// one that failed, or -1 if that is not known.
func (w *worker) handleAll(conn *pgx.Conn, tx pgx.Tx, fresh []Delivery) (at int, late bool, err error) {
	if w.c.o.HandleBatch != nil {
		if len(fresh) == 0 {
			return -1, false, nil
		}
		late, err = w.handle(conn, func(ctx context.Context) error { return w.c.o.HandleBatch(ctx, handlerTx{tx}, fresh) })
		return -1, late, err
	}
	for i, d := range fresh {
		late, err = w.handle(conn, func(ctx context.Context) error { return w.c.o.Handle(ctx, handlerTx{tx}, d) })
		if err != nil {
			return i, late, err
		}
	}
	return -1, false, nil
}

// handle calls a handler. It also reports whether that took too long.
func (w *worker) handle(conn *pgx.Conn, handler func(context.Context) error) (late bool, err error) {
	ctx, cancel := context.WithTimeout(w.hard, w.c.o.Timeout)
	defer cancel()
	err = guard(func() error { return handler(ctx) })
	late = ctx.Err() != nil && w.hard.Err() == nil
	if err != nil {
		return late, err
	}
	pg := conn.PgConn()
	switch {
	case conn.IsClosed() && late:
		err = fmt.Errorf("inbox: the handler took longer than %v: %w", w.c.o.Timeout, ctx.Err())
	case conn.IsClosed():
		err = errors.New("inbox: the connection was lost, and the handler returned nil")
	case pg.IsBusy():
		err = fmt.Errorf("%w: it left a result of a query open", errHandler)
	case pg.TxStatus() == 'E':
		err = fmt.Errorf("%w: a statement failed, and it returned nil", errHandler)
	case pg.TxStatus() == 'I':
		err = Permanent(fmt.Errorf("%w: it ended the transaction", errHandler))
	}
	return late, err
}

// before calls Options.Before for what is not known to be handled, and returns the
// messages for which it did not fail.
func (w *worker) before(items []*item) (rest []*item) {
	known, err := w.known(items)
	if err != nil {
		f := causeOf(err, false, false)
		if f == broken {
			w.broken = err
			w.add(untouched, items...)
		} else {
			w.stall(err, items...)
		}
		return nil
	}
	for _, it := range w.allowed(items) {
		if !known[it.ID] {
			ctx, cancel := context.WithTimeout(w.hard, w.c.o.Timeout)
			err := guard(func() (err error) { it.Before, err = w.c.o.Before(ctx, it.Delivery); return err })
			cancel()
			if err != nil {
				if w.hard.Err() != nil {
					w.add(untouched, it)
				} else {
					w.fail(it, err)
				}
				continue
			}
		}
		rest = append(rest, it)
	}
	return rest
}

func (w *worker) known(items []*item) (map[string]bool, error) {
	if len(items) == 0 {
		return nil, nil
	}
	op, cancel := w.operation()
	defer cancel()
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.ID
	}
	rows, err := w.c.pool.Query(op, "SELECT message_id FROM inbox_messages WHERE consumer = $1 AND message_id = ANY($2::text[])", w.c.o.Consumer, ids)
	if err != nil {
		return nil, ours("inbox: look up which messages are handled: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, ours("inbox: look up which messages are handled: %w", err)
	}
	known := make(map[string]bool, len(found))
	for _, id := range found {
		known[id] = true
	}
	return known, nil
}

func (w *worker) handled(it *item) {
	w.add(handled, it)
	w.c.counts.handled.Add(1)
	if f := w.c.o.Hooks.Handled; f != nil {
		f(it.Delivery)
	}
}

func (w *worker) duplicate(it *item) {
	w.add(duplicate, it)
	w.c.counts.duplicates.Add(1)
	if f := w.c.o.Hooks.Duplicate; f != nil {
		f(it.Delivery)
	}
}

// fail books a failure that is the message's fault.
func (w *worker) fail(it *item, err error) {
	it.stalled = 0
	if permanent(err) || it.Attempt >= w.c.o.Attempts {
		w.park(it, err)
		return
	}
	wait := backoff.Wait(it.Attempt, w.c.o.MinRetry, w.c.o.MaxRetry)
	w.c.counts.retried.Add(1)
	w.c.log.Warn("inbox: a message failed, trying again", "queue", w.c.o.Queue, "message_id", it.ID, "attempt", it.Attempt, "wait", wait, "error", err)
	if f := w.c.o.Hooks.Retry; f != nil {
		f(it.Delivery, err)
	}
	it.Attempt++
	w.held[it.lane] = true
	w.results = append(w.results, result{item: it, outcome: again, wait: wait})
}

// stall books a failure that is no message's fault.
func (w *worker) stall(err error, items ...*item) {
	w.stalled = err
	wait := time.Duration(0)
	for _, it := range items {
		it.stalled++
		wait = max(wait, backoff.Wait(it.stalled, w.c.o.MinRetry, w.c.o.MaxRetry))
	}
	w.c.tell("handle messages", err, "messages", len(items), "wait", wait)
	for _, it := range items {
		w.held[it.lane] = true
		w.results = append(w.results, result{item: it, outcome: again, wait: wait})
	}
}

// operation returns the context for statements that must not be cut short when the
// consumer stops: a cancelled statement costs the connection.
func (w *worker) operation() (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.hard, w.c.o.Timeout)
}

func (w *worker) acquire() (*pgxpool.Conn, error) {
	op, cancel := w.operation()
	defer cancel()
	return w.c.pool.Acquire(op)
}
