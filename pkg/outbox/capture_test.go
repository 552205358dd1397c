package outbox_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/outbox"
)

// Making a slot takes until all open transactions are over. Events are
// published meanwhile.
func TestCapturePublishesWhileItsSlotIsMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tx, err := w.DB.Begin(t.Context())
	w.must(err)
	defer tx.Rollback(t.Context())
	ids, err := outbox.Enqueue(t.Context(), tx, outbox.Event{AggregateID: "late", Type: "order.placed"})
	w.must(err)
	r, _ := w.run(outbox.Options{Source: outbox.CDC})
	w.enqueue("early", "order.placed", 3)
	w.await("the early ones arrive", func() bool { return len(w.firsts()) == 3 })
	s, err := r.Stats(t.Context())
	w.must(err)
	if s.SlotActive || s.SlotLag != -1 {
		t.Errorf("while the slot is made: %+v", s)
	}
	w.must(tx.Commit(t.Context()))
	w.enqueued = append(w.enqueued, ids...)
	w.awaitAll()
}

// It goes on where it was, and what came meanwhile is not lost.
func TestCaptureRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 4 {
		_, stop := w.run(outbox.Options{Source: outbox.CDC, Slot: w.Name})
		w.awaitSession(outbox.CDC)
		w.enqueue("a", "order.changed", 10)
		w.await("they arrive", func() bool { return len(w.firsts()) == 20*i+10 })
		w.must(stop())
		w.enqueue("a", "order.changed", 10)
	}
	w.run(outbox.Options{Source: outbox.CDC, Slot: w.Name})
	if dups := w.awaitAll(); dups != 0 {
		t.Errorf("%d duplicates", dups)
	}
}

// Rows that are published and deleted are known as such when the log tells of
// them again.
func TestCaptureKnowsDeletedRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stop := w.run(outbox.Options{Source: outbox.CDC, Delete: true})
	w.awaitSession(outbox.CDC)
	w.must(stop())
	w.enqueue("a", "order.changed", 10)
	_, stop = w.run(outbox.Options{Source: outbox.Polling, Delete: true})
	w.await("polling publishes them", func() bool { return w.count("true") == 0 })
	w.must(stop())
	w.run(outbox.Options{Source: outbox.CDC, Delete: true})
	w.enqueue("b", "order.changed", 1)
	w.await("the last arrives", func() bool { return len(w.numbers("b")) == 1 })
	if n := len(w.deliveries()); n != 11 {
		t.Errorf("%d arrived", n)
	}
}

// The second stands by, and takes over.
func TestCaptureStandby(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stop := w.run(outbox.Options{Source: outbox.CDC})
	w.awaitSession(outbox.CDC)
	second, _ := w.run(outbox.Options{Source: outbox.CDC})
	w.enqueue("a", "order.changed", 10)
	w.awaitAll()
	if s, err := second.Stats(t.Context()); err != nil || s.Published != 0 {
		t.Errorf("the second published %d, %v", s.Published, err)
	}
	w.must(stop())
	w.enqueue("a", "order.changed", 10)
	w.awaitAll()
	if s, err := second.Stats(t.Context()); err != nil || s.Published == 0 {
		t.Errorf("the second published %d, %v", s.Published, err)
	}
}

// The position moves on although nothing is written into the outbox.
func TestCaptureHeartbeat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(outbox.Options{Source: outbox.CDC, Heartbeat: 100 * time.Millisecond})
	w.awaitSession(outbox.CDC)
	_, err := w.DB.Exec(t.Context(), "CREATE TABLE other AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
	w.must(err)
	var written string
	w.must(w.DB.QueryRow(t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&written))
	w.await("the slot has come so far", func() (ok bool) {
		w.must(w.DB.QueryRow(t.Context(), "SELECT confirmed_flush_lsn >= $1::pg_lsn FROM pg_replication_slots WHERE database = current_database()", written).Scan(&ok))
		return ok
	})
	w.must(err)
}

// Nothing is confirmed before it is recorded.
func TestCaptureConfirmsWhatIsRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(outbox.Options{Source: outbox.CDC, Heartbeat: 50 * time.Millisecond})
	w.awaitSession(outbox.CDC)
	w.enqueue("a", "order.placed", 1)
	w.awaitAll()

	// The table can be written into, but no row can be changed.
	_, err := w.DB.Exec(t.Context(), `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
		CREATE TRIGGER wait BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION wait()`)
	w.must(err)
	barrier, err := w.DB.Begin(t.Context())
	w.must(err)
	defer barrier.Rollback(t.Context())
	_, err = barrier.Exec(t.Context(), "SELECT pg_advisory_xact_lock(1)")
	w.must(err)
	w.enqueue("a", "order.paid", 1)
	var written string
	w.must(w.DB.QueryRow(t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&written))
	w.await("it arrives", func() bool { return len(w.firsts()) == 2 })
	arrived := time.Now()
	confirmed := func() (ok bool) {
		w.must(w.DB.QueryRow(t.Context(), "SELECT confirmed_flush_lsn >= $1::pg_lsn FROM pg_replication_slots WHERE database = current_database()", written).Scan(&ok))
		return ok
	}
	w.await("the relay tells its position a few times", func() (ok bool) {
		w.must(w.AdminDB.QueryRow(t.Context(), "SELECT reply_time > $2 FROM pg_stat_replication r JOIN pg_stat_activity a USING (pid) WHERE a.datname = $1", w.Name, arrived.Add(300*time.Millisecond)).Scan(&ok))
		return ok
	})
	if confirmed() {
		t.Error("the position is confirmed, although the row is not marked")
	}
	w.must(barrier.Rollback(t.Context()))
	w.await("the position is confirmed", confirmed)
	w.awaitAll()
}

// Log that the server has dropped is made up for from the table.
func TestCaptureLostSlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, stop := w.run(outbox.Options{Source: outbox.CDC})
	w.awaitSession(outbox.CDC)
	w.must(stop())
	w.enqueue("a", "order.changed", 10)
	// As good as lost, and possible without changing the server's settings.
	w.await("the slot can be dropped", func() bool {
		_, err := w.DB.Exec(t.Context(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
		return err == nil
	})
	w.run(outbox.Options{Source: outbox.CDC})
	if dups := w.awaitAll(); dups != 0 {
		t.Errorf("%d duplicates", dups)
	}
}

// One relay polls while another captures: twice the messages, but in order.
func TestCaptureBesidePolling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(outbox.Options{Source: outbox.CDC})
	w.awaitSession(outbox.CDC)
	w.run(outbox.Options{Source: outbox.Polling, PollInterval: time.Millisecond})
	for i := range 20 {
		w.enqueue(fmt.Sprint("a", i%5), "order.changed", 7)
	}
	t.Logf("%d duplicates", w.awaitAll())
	if got := w.numbers("a0"); !slices.Equal(got[:7], sequence(7)) {
		t.Errorf("arrived in the order %v", got)
	}
}

// One transaction that is larger than all that is held in memory.
func TestCaptureLargeTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(outbox.Options{Source: outbox.CDC, Batch: 20})
	w.awaitSession(outbox.CDC)
	w.must(pgx.BeginFunc(t.Context(), w.DB, func(tx pgx.Tx) error {
		var events []outbox.Event
		for i := range 2000 {
			events = append(events, outbox.Event{AggregateID: fmt.Sprint("a", i%3), Type: "order.changed", Payload: i})
		}
		ids, err := outbox.Enqueue(t.Context(), tx, events...)
		w.enqueued = append(w.enqueued, ids...)
		return err
	}))
	if dups := w.awaitAll(); dups != 0 {
		t.Errorf("%d duplicates", dups)
	}
}
