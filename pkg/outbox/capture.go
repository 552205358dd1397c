package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/internal/backoff"
	"crashcourse/pkg/postgres"
)

// errSlotBusy tells that another relay reads from the slot.
var errSlotBusy = errors.New("outbox: another relay reads the replication slot")

// standbyInterval is how often a relay tries to take over a busy slot.
const standbyInterval = 500 * time.Millisecond

// capture publishes events as they appear in the write-ahead log, until ctx
// ends. It is a row of sessions: whatever fails ends one, and the next goes on
// from what the table and the slot remember.
func (r *Relay) capture(ctx context.Context) error {
	careful := false
	for failures, busy := 0, false; ctx.Err() == nil; {
		err := r.session(ctx, careful, func() { failures, busy = 0, false })
		careful = faultOfMessage(err)
		switch {
		case ctx.Err() != nil || err == nil:
			return nil
		case errors.Is(err, errSlotBusy):
			if !busy {
				r.log.Info("outbox: another relay reads the replication slot; standing by")
			}
			busy = true
			backoff.Sleep(ctx, standbyInterval)
		case fatal(err):
			return err
		default:
			failures++
			r.again(ctx, "capture changes", err, failures)
		}
	}
	return nil
}

// session is one replication connection and all that hangs on it. Events flow
// from the stream through a check against the table into a window; what became
// of them is recorded in the table, and only then is the position in the log
// confirmed.
type session struct {
	r        *Relay
	conn     *pgconn.PgConn // belongs to stream, once that runs
	progress progress
	holds    holds

	// below is a position in the log. Events before it may have been published
	// already, so they are looked up in the table.
	below pglogrepl.LSN

	captured chan *Message // from the log
	checked  chan *Message // to be published
	outcomes chan record   // to be recorded
	drained  chan struct{} // closed when all outcomes are recorded
}

func (r *Relay) session(ctx context.Context, careful bool, began func()) error {
	slot, err := r.prepareSlot(ctx)
	if err != nil {
		return err
	}
	conn, err := r.replicate(ctx, slot)
	if err != nil {
		return err
	}
	began()
	s := &session{
		r: r, conn: conn,
		captured: make(chan *Message, r.o.Batch),
		checked:  make(chan *Message, r.o.Batch),
		outcomes: make(chan record, r.o.Batch),
		drained:  make(chan struct{}),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.stream(ctx) })
	g.Go(func() error {
		// What the log will not tell comes first: events from before there was a
		// slot. The stream waits meanwhile.
		if err := s.catchUp(ctx, careful); err != nil || ctx.Err() != nil {
			close(s.drained)
			return err
		}
		g.Go(func() error { return s.check(ctx) })
		g.Go(func() error { return s.publish(ctx) })
		g.Go(func() error { return s.record() })
		g.Go(func() error { return s.sweep(ctx) })
		return nil
	})
	return g.Wait()
}

// prepareSlot makes the publication and the slot unless they are there, and
// returns the slot's name.
func (r *Relay) prepareSlot(ctx context.Context) (slot string, err error) {
	short, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	var published, covers, exists, lost bool
	err = r.pool.QueryRow(short, `
		SELECT `+slotNameSQL+`,
		       EXISTS (SELECT FROM pg_publication WHERE pubname = $2),
		       EXISTS (SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
		               WHERE p.pubname = $2 AND r.prrelid = 'outbox'::regclass AND p.pubinsert),
		       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = `+slotNameSQL+`),
		       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = `+slotNameSQL+` AND wal_status = 'lost')`,
		r.o.Slot, r.o.Publication).Scan(&slot, &published, &covers, &exists, &lost)
	if err != nil {
		return "", fmt.Errorf("outbox: look for the replication slot: %w", err)
	}
	if published && !covers {
		return "", fmt.Errorf("%w: the publication %q does not cover inserts into the table outbox; drop it, or choose another Options.Publication", errSetup, r.o.Publication)
	}
	if !published {
		_, err := r.pool.Exec(short, "CREATE PUBLICATION "+pgx.Identifier{r.o.Publication}.Sanitize()+" FOR TABLE outbox WITH (publish = 'insert')")
		if err != nil && postgres.SQLState(err) != "42710" && postgres.SQLState(err) != "23505" { // another relay was faster
			return "", fmt.Errorf("outbox: create the publication %q (the role must own the table outbox and have CREATE on the database): %w", r.o.Publication, err)
		}
	}
	if lost {
		r.log.Error("outbox: the server has dropped the log that the replication slot needs (max_slot_wal_keep_size); making the slot anew", "slot", slot)
		if _, err := r.pool.Exec(short, "SELECT pg_drop_replication_slot($1)", slot); err != nil {
			return "", fmt.Errorf("outbox: drop the replication slot %q, which is lost: %w", slot, err)
		}
	}
	if exists && !lost {
		return slot, nil
	}
	return slot, r.createSlot(ctx, slot)
}

// createSlot makes the slot. The server waits for every transaction that is
// open, in any database, before it is done. The relay polls meanwhile.
func (r *Relay) createSlot(ctx context.Context, slot string) error {
	g, ctx := errgroup.WithContext(ctx)
	made := make(chan struct{})
	g.Go(func() error {
		defer close(made)
		_, err := r.pool.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
		switch postgres.SQLState(err) {
		case "42710": // another relay was faster
			return nil
		case "55000":
			return fmt.Errorf("%w: logical replication is off; set wal_level = logical in postgresql.conf and restart the server: %w", errSetup, err)
		case "42501":
			return fmt.Errorf("%w: the role may not replicate; ALTER ROLE … REPLICATION: %w", errSetup, err)
		case "53400":
			return fmt.Errorf("%w: all replication slots are taken; raise max_replication_slots, or drop one: %w", errSetup, err)
		}
		if err != nil {
			return fmt.Errorf("outbox: create the replication slot %q: %w", slot, err)
		}
		r.log.Info("outbox: replication slot created; drop it when CDC is no longer used, for it keeps the server's log", "slot", slot)
		return nil
	})
	g.Go(func() error {
		var pub publisher
		defer pub.close()
		for {
			select {
			case <-made:
				return nil
			case <-time.After(r.o.PollInterval):
			}
			if _, _, err := r.pass(ctx, &pub, 0); err != nil && !errors.Is(err, errBusy) {
				return err
			}
		}
	})
	return g.Wait()
}

// replicate makes a connection and starts to stream from the slot's confirmed
// position.
func (r *Relay) replicate(ctx context.Context, slot string) (*pgconn.PgConn, error) {
	conn, err := r.connect(ctx, func(c *pgx.ConnConfig) {
		c.RuntimeParams["replication"] = "database"
		c.RuntimeParams["datestyle"] = "ISO"
		c.RuntimeParams["timezone"] = "UTC"
	})
	if err != nil {
		return nil, err
	}
	short, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	err = pglogrepl.StartReplication(short, conn.PgConn(), slot, 0, pglogrepl.StartReplicationOptions{
		Mode:       pglogrepl.LogicalReplication,
		PluginArgs: []string{"proto_version '1'", "publication_names " + quoteLiteral(pgx.Identifier{r.o.Publication}.Sanitize())},
	})
	if err == nil {
		return conn.PgConn(), nil
	}
	closeSoon(ctx, conn.PgConn())
	switch postgres.SQLState(err) {
	case "55006", "42704": // it is in use, or whoever was making it has given up
		return nil, errSlotBusy
	}
	return nil, fmt.Errorf("outbox: start replication from the slot %q: %w", slot, err)
}

// catchUp publishes what is pending in the table, learns what is held, and
// notes up to where in the log events may be known already.
func (s *session) catchUp(ctx context.Context, careful bool) error {
	var pub publisher
	defer pub.close()
	for ctx.Err() == nil {
		pub.careful = careful
		n, _, err := s.r.pass(ctx, &pub, 0)
		if errors.Is(err, errBusy) {
			backoff.Sleep(ctx, standbyInterval) // a relay that polls: it will be done soon
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	op, cancel := s.r.operation()
	defer cancel()
	rows, err := s.r.pool.Query(op, "SELECT aggregate_id FROM outbox_held")
	if err != nil {
		return fmt.Errorf("outbox: read what is held: %w", err)
	}
	held, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("outbox: read what is held: %w", err)
	}
	s.holds.load(held)
	if err := s.r.pool.QueryRow(op, "SELECT pg_current_wal_insert_lsn()::text").Scan(&s.below); err != nil {
		return fmt.Errorf("outbox: ask for the position in the log: %w", err)
	}
	return nil
}

// closeSoon closes a connection, although ctx may have ended.
func closeSoon(ctx context.Context, conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}
