package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	contract "crashcourse/exercises/outbox"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
	"crashcourse/pkg/exercise"
)

func placeSpec() *crash.Spec {
	return &crash.Spec{
		ID:         "outbox/place",
		Schema:     schema,
		Grants:     grants,
		Invariants: []crash.Invariant{noOrderUnannounced, noPhantomEvent, noLostOrder, eventIntact},
		Faults:     []crash.Fault{crash.Kill, crash.Cut, crash.FailStatement, crash.Blackhole, crash.Shutdown},
		Scenario: func(a *crash.Arena, rng *rand.Rand, _ string) (crash.Scenario, error) {
			s := &placing{arena: a}
			for range exercise.PoolSize + 2 { // a pool that leaks runs dry
				s.orders = append(s.orders, &placed{Order: randomOrder(rng)})
			}
			// What some encodings lose, and two orders that differ by their ID only.
			s.orders[1].TotalCents = 0
			s.orders[2].TotalCents = 1<<60 + rng.Int64N(1<<60) // more than a float64 holds
			s.orders[2].Customer += ` "O'Neill" <é> \u0041`
			s.orders[4].Customer, s.orders[4].TotalCents = s.orders[3].Customer, s.orders[3].TotalCents
			return s, nil
		},
	}
}

// placing is the scenario of outbox/place: a few orders, one after the other.
type placing struct {
	crash.Quiet
	arena  *crash.Arena
	orders []*placed
	errors int // calls that returned an error
	dead   int // calls that died with their process
}

// placed is an order and what became of the call that was to place it.
type placed struct {
	contract.Order
	state string // "" not tried, "calling", "nil", "error", "died"
	err   string
}

func (s *placing) Reset(ctx context.Context) error {
	if _, err := s.arena.DB.Exec(ctx, "DELETE FROM public.outbox; DELETE FROM public.orders"); err != nil {
		return fmt.Errorf("empty the tables: %w", err)
	}
	return nil
}

// next asks p to place the next order, if one is left.
func (s *placing) next(p *crash.Process) error {
	for i, o := range s.orders {
		if o.state == "calling" {
			return nil
		}
		if o.state != "" {
			continue
		}
		arg, err := json.Marshal(o.Order)
		if err != nil {
			return err
		}
		o.state = "calling"
		return p.Send(crash.Call{ID: i + 1, Arg: arg})
	}
	return nil
}

func (s *placing) Started(_ context.Context, p *crash.Process) error { return s.next(p) }

func (s *placing) Replied(_ context.Context, p *crash.Process, r crash.Reply) error {
	if r.ID < 1 || r.ID > len(s.orders) || s.orders[r.ID-1].state != "calling" {
		return nil // a claim about nothing
	}
	o := s.orders[r.ID-1]
	o.state = "nil"
	if r.Error != "" {
		o.state, o.err = "error", r.Error
		s.errors++
	}
	return s.next(p)
}

func (s *placing) Ended(context.Context, *crash.Process) error {
	for _, o := range s.orders {
		if o.state == "calling" {
			o.state = "died"
			s.dead++
		}
	}
	return nil
}

func (s *placing) Done(context.Context) (bool, error) {
	for _, o := range s.orders {
		if o.state == "" || o.state == "calling" {
			return false, nil
		}
	}
	return true, nil
}

func (s *placing) Progress() int {
	n := 0
	for _, o := range s.orders {
		if o.state == "nil" || o.state == "error" {
			n++
		}
	}
	return n
}

// row is a row of outbox.
type row struct {
	seq       int64
	id        uuid.UUID
	aggregate string
	kind      string
	payload   []byte
	published *time.Time
}

func readOutbox(ctx context.Context, a *crash.Arena) ([]row, error) {
	rows, err := a.DB.Query(ctx, `SELECT seq, message_id, aggregate_id, type, payload, published_at FROM public.outbox ORDER BY seq`)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (row, error) {
		var x row
		return x, r.Scan(&x.seq, &x.id, &x.aggregate, &x.kind, &x.payload, &x.published)
	})
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	return out, nil
}

type orderRow struct {
	id, customer, status string
	cents                int64
}

func (s *placing) readOrders(ctx context.Context) ([]orderRow, error) {
	rows, err := s.arena.DB.Query(ctx, `SELECT id::text, customer, status, total_cents FROM public.orders`)
	if err != nil {
		return nil, fmt.Errorf("read the orders: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (orderRow, error) {
		var x orderRow
		return x, r.Scan(&x.id, &x.customer, &x.status, &x.cents)
	})
	if err != nil {
		return nil, fmt.Errorf("read the orders: %w", err)
	}
	return out, nil
}

func (s *placing) State(ctx context.Context) (string, error) {
	events, err := readOutbox(ctx, s.arena)
	if err != nil {
		return "", err
	}
	orders, err := s.readOrders(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, o := range s.orders {
		n, e := 0, 0
		for _, x := range orders {
			if x.id == o.ID {
				n++
			}
		}
		for _, x := range events {
			if x.aggregate == o.ID {
				e++
			}
		}
		fmt.Fprintf(&b, "%s:%d/%d ", o.state, n, e)
	}
	return b.String(), nil
}

func (s *placing) Check(ctx context.Context, faults int) ([]crash.Violation, error) {
	events, err := readOutbox(ctx, s.arena)
	if err != nil {
		return nil, err
	}
	orders, err := s.readOrders(ctx)
	if err != nil {
		return nil, err
	}
	var out []crash.Violation
	add := func(i crash.Invariant, format string, args ...any) {
		out = append(out, crash.Violation{Invariant: i.Name, Detail: fmt.Sprintf(format, args...)})
	}
	known := map[string]bool{}
	for i, o := range s.orders {
		known[o.ID] = true
		var order *orderRow
		for j := range orders {
			if orders[j].id == o.ID {
				order = &orders[j]
			}
		}
		var mine []row
		for _, e := range events {
			if about(e, o.Order) {
				mine = append(mine, e)
			}
		}
		name := fmt.Sprintf("order %d", i+1)
		switch {
		case order != nil && len(mine) == 0:
			add(noOrderUnannounced, "%s is stored, and no event announces it", name)
		case order == nil && len(mine) > 0:
			add(noPhantomEvent, "an event announces %s, which is not stored", name)
		case len(mine) > 1:
			add(noPhantomEvent, "%s has %d events instead of one", name, len(mine))
		case o.state == "nil" && order == nil:
			add(noLostOrder, "Place returned nil for %s, and it is not stored", name)
		}
		if order != nil && (order.customer != o.Customer || order.cents != o.TotalCents || order.status != "pending") {
			add(eventIntact, "%s is stored with customer %q, total_cents %d, status %q instead of %q, %d, \"pending\"", name, order.customer, order.cents, order.status, o.Customer, o.TotalCents)
		}
		for _, e := range mine {
			var got contract.Order
			switch err := json.Unmarshal(e.payload, &got); {
			case e.aggregate != o.ID:
				add(eventIntact, "the event of %s has aggregate_id %q instead of the order's id", name, stage.Clip(e.aggregate, 60))
			case e.kind != "order.placed":
				add(eventIntact, "the event of %s has type %q instead of order.placed", name, e.kind)
			case err != nil || got != o.Order || !whole(e.payload):
				add(eventIntact, "the event of %s has payload %.200s", name, e.payload)
			case e.published != nil:
				add(eventIntact, "the event of %s has a published_at, although nobody has published it", name)
			}
		}
	}
	for _, e := range events {
		if !slices.ContainsFunc(s.orders, func(o *placed) bool { return about(e, o.Order) }) {
			add(noPhantomEvent, "the outbox has an event of an aggregate %q that nobody ordered", e.aggregate)
		}
	}
	for _, o := range orders {
		if !known[o.id] {
			add(noPhantomEvent, "there is an order %s that nobody placed", o.id)
		}
	}
	// Only a call that a fault struck may fail or die.
	if s.errors+s.dead > faults {
		for i, o := range s.orders {
			if o.state == "error" || o.state == "died" {
				why := "Place returned an error for order %d: %s"
				if o.state == "died" {
					why = "the process died while it placed order %d%s"
				}
				out = append(out, crash.Violation{Invariant: crash.AllWorkDone, Detail: fmt.Sprintf(why, i+1, o.err)})
			}
		}
	}
	return out, nil
}

// whole says whether a payload has all the fields of an order, also those that
// are zero.
func whole(payload []byte) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(payload, &fields) != nil {
		return false
	}
	for _, name := range []string{"order_id", "customer", "total_cents"} {
		if _, ok := fields[name]; !ok {
			return false
		}
	}
	return true
}

// about says whether an event is meant to announce the order.
func about(e row, o contract.Order) bool {
	var got contract.Order
	return e.aggregate == o.ID || json.Unmarshal(e.payload, &got) == nil && got.ID == o.ID
}

func (s *placing) Tables(ctx context.Context) ([]crash.Table, error) {
	orders := crash.Table{Name: "orders", Columns: []string{"order", "id", "customer", "total_cents", "status", "Place returned"}}
	stored, err := s.readOrders(ctx)
	if err != nil {
		return nil, err
	}
	events, err := readOutbox(ctx, s.arena)
	if err != nil {
		return nil, err
	}
	number := map[string]int{}
	for i, o := range s.orders {
		number[o.ID] = i + 1
		var has bool
		for _, x := range stored {
			if x.id == o.ID {
				has = true
				orders.Rows = append(orders.Rows, []string{fmt.Sprint(i + 1), stage.Short(x.id), x.customer, fmt.Sprint(x.cents), x.status, o.returned()})
			}
		}
		if !has {
			orders.Rows = append(orders.Rows, []string{fmt.Sprint(i + 1), "not stored", "", "", "", o.returned()})
		}
		var announced bool
		for _, e := range events {
			announced = announced || e.aggregate == o.ID
		}
		if has != announced {
			orders.Marks = append(orders.Marks, len(orders.Rows)-1)
		}
	}
	outbox := crash.Table{Name: "outbox", Columns: []string{"seq", "message_id", "aggregate_id", "type", "payload"}}
	for _, e := range events {
		aggregate := stage.Short(e.aggregate)
		if n := number[e.aggregate]; n > 0 {
			aggregate = fmt.Sprintf("order %d", n)
		}
		outbox.Rows = append(outbox.Rows, []string{fmt.Sprint(e.seq), stage.Short(e.id.String()), aggregate, e.kind, stage.Clip(string(e.payload), 60)})
	}
	return []crash.Table{orders, outbox}, nil
}

func (o *placed) returned() string {
	switch o.state {
	case "":
		return "not called yet"
	case "calling":
		return "still running"
	case "error":
		return "error: " + stage.Clip(o.err, 80)
	case "died":
		return "died"
	}
	return o.state
}

func randomOrder(rng *rand.Rand) contract.Order {
	return contract.Order{
		ID:         stage.UUID(rng).String(),
		Customer:   "customer " + stage.Short(stage.UUID(rng).String()),
		TotalCents: 100 + rng.Int64N(1_000_000),
	}
}
