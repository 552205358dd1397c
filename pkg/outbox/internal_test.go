package outbox

import (
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/servertest"
)

func TestProgress(t *testing.T) {
	var p progress
	is := func(want pglogrepl.LSN) {
		t.Helper()
		if got := p.confirmed(); got != want {
			t.Errorf("confirmed %d, want %d", got, want)
		}
	}
	p.skipTo(5)
	is(5)
	one := p.begin(1, 10)
	p.add(one)
	p.add(one)
	p.recorded(one)
	p.commit(one, 11)
	two := p.begin(2, 20)
	p.add(two)
	p.recorded(two)
	p.skipTo(15) // one is not done
	is(5)
	p.recorded(one)
	is(11) // two has not been read to its end
	p.commit(two, 21)
	is(21)
	three := p.begin(3, 30)
	p.commit(three, 31) // nothing in it
	is(31)
	p.skipTo(30)
	is(31)
}

// The log tells of a transaction by the lower half of its number, and a moment
// before its rows can be seen.
func TestVisible(t *testing.T) {
	t.Parallel()
	s := servertest.New(t)
	ctx := t.Context()
	r, err := NewRelay(s.DB, Options{Conn: s.Conn})
	if err != nil {
		t.Fatal(err)
	}
	r.hard = ctx
	ses := session{r: r}
	tx, err := s.DB.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	var open, over int64
	if err := s.DB.QueryRow(ctx, "SELECT pg_current_xact_id()::text::bigint & 4294967295").Scan(&over); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(ctx, "SELECT pg_current_xact_id()::text::bigint & 4294967295").Scan(&open); err != nil {
		t.Fatal(err)
	}
	future := (open + 1<<20) & 0xffffffff
	seen, err := ses.seen([]int64{over, open, future})
	if err != nil || !seen[over] || seen[open] || seen[future] {
		t.Errorf("over %d, open %d, future %d: visible are %v, %v", over, open, future, seen, err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if seen, err := ses.seen([]int64{open}); err != nil || !seen[open] {
		t.Errorf("after its commit: %v, %v", seen, err)
	}
}

func TestWindowHoldsBackTheAggregate(t *testing.T) {
	w := window{behind: map[string][]*Message{}, inflight: map[uint64]flight{}, returned: map[string]string{}, returns: make(chan amqp.Return)}
	a1, a2, a3, b1 := &Message{Seq: 1, AggregateID: "a"}, &Message{Seq: 2, AggregateID: "a"}, &Message{Seq: 3, AggregateID: "a"}, &Message{Seq: 4, AggregateID: "b"}
	for _, m := range []*Message{a1, a2, a3, b1} {
		w.add(m)
	}
	ready := func(want ...*Message) {
		t.Helper()
		if len(w.ready) != len(want) {
			t.Fatalf("%d are ready, want %d", len(w.ready), len(want))
		}
		for i := range want {
			if w.ready[i] != want[i] {
				t.Errorf("ready is %d, want %d", w.ready[i].Seq, want[i].Seq)
			}
		}
	}
	ready(a1, b1)
	said := func(ack bool) func() bool { return func() bool { return ack } }
	w.inflight[1], w.inflight[2], w.ready = flight{a1, said(true)}, flight{b1, said(true)}, nil
	if o, err := w.settle(amqp.Confirmation{DeliveryTag: 1}, true); err != nil || o.Message != a1 || o.refusal != "" {
		t.Errorf("%+v, %v", o, err)
	}
	ready(a2)
	w.inflight[3], w.ready = flight{a2, said(false)}, nil
	if o, err := w.settle(amqp.Confirmation{DeliveryTag: 3, Ack: true}, true); err != nil || o.Message != a2 || o.refusal == "" || len(o.dropped) != 1 {
		t.Errorf("%+v, %v", o, err)
	}
	ready()
	w.add(a2) // b1 is still on the way
	w.forget()
	w.add(a3)
	ready(a3)
	if _, err := w.settle(amqp.Confirmation{DeliveryTag: 9}, true); err == nil {
		t.Error("a confirm for what was never published: no error")
	}
}

func TestDecode(t *testing.T) {
	relations := map[uint32][]string{7: {"seq", "message_id", "aggregate_id", "type", "payload", "created_at", "published_at"}}
	row := []byte("\x00\x00\x00\x07N\x00\x07")
	for _, text := range []string{"42", "0198e6a1-0000-7000-8000-000000000001", "order-1", "order.placed", `{"a": 1}`, "2026-11-25 03:44:06.5+00"} {
		row = append(row, 't', 0, 0, 0, byte(len(text)))
		row = append(row, text...)
	}
	row = append(row, 'n')
	m, err := decode(relations, row)
	if err != nil {
		t.Fatal(err)
	}
	want := time.Date(2026, 11, 25, 3, 44, 6, 500e6, time.UTC)
	if m.Seq != 42 || m.ID.String() != "0198e6a1-0000-7000-8000-000000000001" || m.AggregateID != "order-1" || m.Type != "order.placed" || string(m.Payload) != `{"a": 1}` || !m.CreatedAt.Equal(want) {
		t.Errorf("decoded %+v", m)
	}
	for n := range row {
		if _, err := decode(relations, row[:n]); err == nil {
			t.Errorf("the first %d of %d bytes: no error", n, len(row))
		}
	}
	for name, bad := range map[string]string{
		"unknown relation": "\x00\x00\x00\x08N\x00\x07",
		"other columns":    "\x00\x00\x00\x07N\x00\x06",
		"endless column":   "\x00\x00\x00\x07N\x00\x07t\xff\xff\xff\xff1",
		"no number":        "\x00\x00\x00\x07N\x00\x07t\x00\x00\x00\x01x",
	} {
		if _, err := decode(relations, []byte(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
