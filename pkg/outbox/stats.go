package outbox

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// counts are what a relay has done since it was made.
type counts struct {
	published, refused, failed atomic.Uint64
}

// Stats are the figures to watch.
type Stats struct {
	// Backlog is how many committed events are not published, those held
	// included.
	Backlog int64
	// Lag is the age of the first of them, 0 if there is none. This is the one
	// to alert on.
	Lag time.Duration
	// Held is how many aggregates are held because the broker has refused an
	// event of theirs. The table outbox_held says which and why.
	Held int64

	// SlotLag is how many bytes of the write-ahead log CDC has not confirmed, or
	// -1 if there is no replication slot yet. The server keeps at least these: a
	// slot that nobody reads fills the disk.
	SlotLag int64
	// SlotActive tells that a relay is reading from the slot.
	SlotActive bool

	// Published, Refused and Failed count what this relay has done since it was
	// made: events confirmed, events refused, and errors after which it tried
	// again. Dialled counts the connections to the broker that it made.
	Published, Refused, Failed, Dialled uint64
	// Blocked tells that the broker takes no messages for the time being: it is
	// out of memory or disk.
	Blocked bool
}

// Stats reads the figures from the database; the counts are this relay's own.
// It reads the pending rows' index, so call it every few seconds, not more
// often. It may be called whether the relay runs or not.
func (r *Relay) Stats(ctx context.Context) (Stats, error) {
	s := Stats{
		Published: r.counts.published.Load(),
		Refused:   r.counts.refused.Load(),
		Failed:    r.counts.failed.Load(),
		Dialled:   r.link.Dialled(),
		Blocked:   r.link.Blocked(),
	}
	var lag float64
	err := r.pool.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL),
		       coalesce((SELECT extract(epoch FROM clock_timestamp() - created_at)::float8
		                 FROM outbox WHERE published_at IS NULL ORDER BY seq LIMIT 1), 0),
		       (SELECT count(*) FROM outbox_held),
		       coalesce((SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint
		                 FROM pg_replication_slots WHERE slot_name = `+slotNameSQL+`), -1),
		       coalesce((SELECT active AND confirmed_flush_lsn IS NOT NULL -- it is null, and the slot active, while the slot is made
		                 FROM pg_replication_slots WHERE slot_name = `+slotNameSQL+`), false)`,
		r.o.Slot).Scan(&s.Backlog, &lag, &s.Held, &s.SlotLag, &s.SlotActive)
	if err != nil {
		return Stats{}, fmt.Errorf("outbox: read the figures: %w", err)
	}
	s.Lag = max(0, time.Duration(lag*float64(time.Second)))
	return s, nil
}

// slotNameSQL is the slot's name, given the option's value.
const slotNameSQL = `coalesce(nullif($1::text, ''), 'outbox_' || (SELECT oid FROM pg_database WHERE datname = current_database()))`
