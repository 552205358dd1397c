package outbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/outbox"
	"crashcourse/pkg/servertest"
)

func TestEnqueue(t *testing.T) {
	t.Parallel()
	s := servertest.New(t)
	ctx := t.Context()
	if err := outbox.Migrate(ctx, s.DB); err != nil {
		t.Fatal(err)
	}
	tx, err := s.DB.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)

	if ids, err := outbox.Enqueue(ctx, tx); err != nil || ids != nil {
		t.Errorf("nothing: %v, %v", ids, err)
	}
	own := uuid.New()
	events := []outbox.Event{{ID: own, AggregateID: "a", Type: "t", Payload: json.RawMessage(`{"b": 1, "a": [true]}`)}}
	for i := range 5000 {
		events = append(events, outbox.Event{AggregateID: fmt.Sprint("a", i%7), Type: "t", Payload: i})
	}
	ids, err := outbox.Enqueue(ctx, tx, events...)
	if err != nil {
		t.Fatal(err)
	}
	if ids[0] != own || ids[1].Version() != 7 {
		t.Errorf("ids begin with %v", ids[:2])
	}
	rows, err := tx.Query(ctx, "SELECT message_id, aggregate_id, payload::text, published_at IS NULL FROM outbox ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for ; rows.Next(); i++ {
		var id uuid.UUID
		var aggregate, payload string
		var pending bool
		if err := rows.Scan(&id, &aggregate, &payload, &pending); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprint(events[i].Payload)
		if i == 0 {
			want = `{"a": [true], "b": 1}`
		}
		if id != ids[i] || aggregate != events[i].AggregateID || payload != want || !pending {
			t.Fatalf("row %d is %v %s %s, want %v %s %s", i, id, aggregate, payload, ids[i], events[i].AggregateID, want)
		}
	}
	if rows.Err() != nil || i != len(events) {
		t.Fatalf("%d rows, %v", i, rows.Err())
	}
	if _, err := outbox.Enqueue(ctx, tx, events[0]); err == nil || errors.Is(err, outbox.ErrInvalid) {
		t.Errorf("the same ID again: %v", err)
	}
}

func TestEnqueueInvalid(t *testing.T) {
	t.Parallel()
	s := servertest.New(t)
	ctx := t.Context()
	if err := outbox.Migrate(ctx, s.DB); err != nil {
		t.Fatal(err)
	}
	err := pgx.BeginFunc(ctx, s.DB, func(tx pgx.Tx) error {
		for _, e := range []outbox.Event{
			{Type: "t"},
			{AggregateID: "a"},
			{AggregateID: "a", Type: strings.Repeat("t", 256)},
			{AggregateID: "a", Type: "t", Payload: make(chan int)},
			{AggregateID: "a", Type: "t", Payload: json.RawMessage("{")},
			{AggregateID: "a", Type: "t", Payload: "NUL \x00"},
			{AggregateID: "a", Type: "t", Payload: json.RawMessage(`"\\\u0000"`)},
		} {
			if _, err := outbox.Enqueue(ctx, tx, e); !errors.Is(err, outbox.ErrInvalid) {
				t.Errorf("%+v: %v", e, err)
			}
		}
		// The transaction is still good, and what only looks like NUL is too.
		_, err := outbox.Enqueue(ctx, tx,
			outbox.Event{AggregateID: "a", Type: strings.Repeat("t", 255), Payload: nil},
			outbox.Event{AggregateID: "a", Type: "t", Payload: `\u0000`})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEnqueueRolledBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tx, err := w.DB.Begin(t.Context())
	w.must(err)
	_, err = outbox.Enqueue(t.Context(), tx, outbox.Event{AggregateID: "a", Type: "order.imagined"})
	w.must(err)
	w.must(tx.Rollback(t.Context()))
	w.enqueue("a", "order.placed", 1)
	w.run(outbox.Options{})
	w.awaitAll()
	if d := w.deliveries(); len(d) != 1 || d[0].RoutingKey != "order.placed" {
		t.Errorf("%d arrived", len(d))
	}
}
