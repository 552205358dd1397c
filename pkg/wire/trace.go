package wire

import (
	"slices"
	"time"
)

// recorder keeps the trace of a proxy. It is guarded by the ordering lock.
type recorder struct {
	began   time.Time
	max     int
	kept    []Message
	dropped int
}

// add records m, gives it its number, and returns its place in kept, or -1
// when the trace is full.
func (r *recorder) add(m *Message) int {
	m.Seq = len(r.kept) + r.dropped + 1
	m.Time = time.Since(r.began)
	if len(r.kept) >= r.max {
		r.dropped++
		return -1
	}
	r.kept = append(r.kept, *m)
	return len(r.kept) - 1
}

// grow adds to the size of an entry.
func (r *recorder) grow(entry int, bytes int64) {
	if entry >= 0 && entry < len(r.kept) {
		r.kept[entry].Size += bytes
	}
}

func (r *recorder) trace() Trace {
	return Trace{Version: TraceVersion, Messages: slices.Clone(r.kept), Dropped: r.dropped}
}

// since returns a copy of what came after the message numbered seq. As long as
// there is room for all, a message's number is one more than its place.
func (r *recorder) since(seq int) []Message {
	if seq >= len(r.kept) {
		return nil
	}
	return slices.Clone(r.kept[max(0, seq):])
}
