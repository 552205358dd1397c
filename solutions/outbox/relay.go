package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
)

// The variants: starting states that are themselves the fault.
const (
	unrouted = "unrouted"
	partly   = "partly"
	crowd    = "crowd"
	late     = "late"
	absent   = "absent"  // of outbox/relays only
	veteran  = "veteran" // of outbox/relays only
)

var variants = []crash.Variant{
	{Name: unrouted, Says: "no queue is bound to the exchange at first, and in the meantime the relay is asked to stop"},
	{Name: partly, Says: "at first no queue wants order.placed, but one wants order.paid"},
	{Name: crowd, Says: "events of two dozen aggregates wait"},
	{Name: late, Says: "one transaction takes a second and a half longer than the others"},
}

func relaySpec() *crash.Spec {
	return &crash.Spec{
		ID:             "outbox/relay",
		Schema:         schema,
		Grants:         grants,
		Invariants:     []crash.Invariant{noLostEvent, noPhantomEvent, orderPerKey, eventIntact, noResend, stopsWhenAsked},
		Faults:         []crash.Fault{crash.Kill, crash.Cut, crash.Blackhole, crash.Nack, crash.Reject, crash.FailStatement, crash.Shutdown, crash.Delay},
		Variants:       variants,
		StopsWhenAsked: stopsWhenAsked.Name,
		Scenario:       relayScenario(3),
	}
}

func relaysSpec() *crash.Spec {
	s := relaySpec()
	s.ID = "outbox/relays"
	s.Processes = 3
	s.Faults = append(slices.Clone(s.Faults), crash.Expire) // the locks of a leader
	s.Invariants = append(slices.Clone(s.Invariants), takesOver)
	s.Variants = append(slices.Clone(variants),
		crash.Variant{Name: absent, Says: "two of the three processes stop after the first wave, and come back late"},
		crash.Variant{Name: veteran, Slow: true, Says: "the process at work stops after eight quiet seconds, and comes back late"})
	s.Scenario = relayScenario(5)
	return s
}

func relayScenario(rounds int) func(*crash.Arena, *rand.Rand, string) (crash.Scenario, error) {
	runs := &past{}
	return func(a *crash.Arena, rng *rand.Rand, variant string) (crash.Scenario, error) {
		s := newRelaying(a, rng, variant, rounds)
		s.past = runs
		return s, nil
	}
}

// relaying is the scenario of outbox/relay and outbox/relays. A first wave of
// events waits when the relay starts. When they are published, a second wave
// comes, and with it an event whose transaction took long: it has a lower seq
// than most of the first wave.
type relaying struct {
	crash.Quiet
	arena    *crash.Arena
	variant  string
	events   []*event
	byID     map[string]*event
	past     *past
	rolled   *event // in a transaction that was rolled back
	listener *stage.Listener

	live  map[*crash.Process]bool // true: it was asked to stop
	asked time.Time               // when they were asked to stop; zero: not yet
	deaf  bool                    // one was asked and went on

	late    pgx.Tx // holds the late event back
	second  bool   // the second wave has come
	started time.Time
	bound   bool

	waveAt     time.Time // when the second wave came
	leaderless bool      // and was not taken up

	refused   error           // the database refused what the shop wrote
	settled   map[string]bool // rows that are marked or deleted
	completed time.Time       // when all rows were first seen settled
	baseline  int             // arrivals before Settle; -1 before it
}

// event is an event that the scenario puts into the outbox.
type event struct {
	n         int // 1, 2, 3 … in the order of seq
	id        uuid.UUID
	aggregate int // 0, 1, 2 …
	key       string
	kind      string
	payload   []byte
	late      bool // held back in an open transaction
	second    bool // comes with the second wave
	backdated bool // its created_at lies before that of the event it follows
}

// arrival is a message that arrived in the judge's queue.
type arrival struct {
	amqp.Delivery
	event *event // nil if no event has its message id
}

func newRelaying(a *crash.Arena, rng *rand.Rand, variant string, rounds int) *relaying {
	s := &relaying{arena: a, variant: variant, byID: map[string]*event{},
		settled: map[string]bool{}, live: map[*crash.Process]bool{}, baseline: -1}
	keys := make([]string, 3)
	for i := range keys {
		keys[i] = stage.UUID(rng).String()
	}
	kinds := []string{"order.placed", "order.paid", "order.packed", "order.shipped", "order.delivered", "order.rated"}
	count := map[int]int{}
	add := func(aggregate int) *event {
		e := &event{n: len(s.events) + 1, id: stage.UUID(rng), aggregate: aggregate, key: keys[aggregate], kind: kinds[count[aggregate]%len(kinds)]}
		count[aggregate]++
		e.payload, _ = json.Marshal(map[string]any{"order_id": e.key, "number": 1<<60 + rng.Int64N(1<<60), // more than a float64 holds
			"note": "note " + stage.Short(stage.UUID(rng).String())})
		s.events = append(s.events, e)
		s.byID[e.id.String()] = e
		return e
	}
	// Aggregate 1 begins with the late event. Aggregate 2 has an event that is
	// older by the clock than the one it follows.
	add(0)
	add(1).late = true
	add(2)
	for r := range rounds - 2 {
		add(0)
		add(2).backdated = r == 0
	}
	if variant == crowd {
		for a := len(keys); a < 25; a++ {
			keys = append(keys, stage.UUID(rng).String())
			add(a)
		}
	}
	add(1).second = true
	for range max(1, rounds-3) {
		add(0).second = true
	}
	add(2).second = true
	s.rolled = &event{id: stage.UUID(rng), key: keys[0], kind: "order.imagined", payload: []byte(`{"order_id": "none"}`)}
	return s
}

func (s *relaying) Close() {
	var keys []string
	for _, e := range s.events {
		keys = append(keys, e.key)
	}
	s.past.add(slices.Compact(keys))
	ctx := context.Background()
	if s.late != nil {
		_ = s.late.Rollback(ctx)
	}
	if s.listener != nil {
		s.listener.Close()
	}
}

// Reset empties the tables, makes the run's queue, and puts in the first wave.
func (s *relaying) Reset(ctx context.Context) error {
	if _, err := s.arena.DB.Exec(ctx, "DELETE FROM public.outbox; DELETE FROM public.orders"); err != nil {
		return fmt.Errorf("empty the tables: %w", err)
	}
	if err := s.listen(); err != nil {
		return err
	}
	// The held back event takes its seq before the events that follow it.
	for _, e := range s.events {
		if e.second {
			break
		}
		if !e.late {
			if err := s.insert(ctx, s.arena.Writer, e); err != nil {
				return err
			}
			continue
		}
		tx, err := s.arena.Writer.Begin(ctx)
		if err != nil {
			return fmt.Errorf("begin the late transaction: %w", err)
		}
		s.late = tx
		if err := s.insert(ctx, tx, e); err != nil {
			return err
		}
	}
	err := pgx.BeginFunc(ctx, s.arena.Writer, func(tx pgx.Tx) error {
		if err := s.insert(ctx, tx, s.rolled); err != nil {
			return err
		}
		return errRollback
	})
	if !errors.Is(err, errRollback) {
		return err
	}
	s.started = time.Now()
	return nil
}

var errRollback = errors.New("roll back")

// execer is what pools and transactions have in common.
type execer interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (s *relaying) insert(ctx context.Context, db execer, e *event) error {
	age := time.Duration(0)
	if e.backdated {
		age = time.Second
	}
	var seq int64
	err := db.QueryRow(ctx, `INSERT INTO public.outbox (message_id, aggregate_id, type, payload, created_at)
		VALUES ($1, $2, $3, $4, now() - $5::interval) RETURNING seq`, e.id, e.key, e.kind, e.payload, age).Scan(&seq)
	if err != nil {
		return fmt.Errorf("insert an event: %w", err)
	}
	return nil
}

// listen records what arrives.
func (s *relaying) listen() (err error) {
	var keys []string
	switch s.variant {
	case unrouted:
	case partly:
		keys = []string{"order.paid"}
	default:
		keys, s.bound = []string{"#"}, true
	}
	s.listener, err = stage.Listen(s.arena.Conn, "events", keys...)
	return err
}

func (s *relaying) Started(_ context.Context, p *crash.Process) error {
	if (s.variant == absent || s.variant == veteran) && !s.asked.IsZero() {
		return nil // it is back too late to be of use
	}
	s.live[p] = false
	return p.Send(crash.Call{ID: 1, Last: true})
}

func (s *relaying) Ended(_ context.Context, p *crash.Process) error {
	delete(s.live, p)
	return nil
}

// Delayed brings the second wave: while one relay pauses over its batch, there
// is something for the others to take.
func (s *relaying) Delayed(ctx context.Context) error { return s.wave(ctx) }

// wave brings the second wave.
func (s *relaying) wave(ctx context.Context) error {
	if s.second {
		return nil
	}
	s.second, s.waveAt = true, time.Now()
	late := s.late
	s.late = nil
	if err := late.Commit(ctx); err != nil {
		return s.refuse(ctx, err)
	}
	for _, e := range s.events {
		if e.second {
			if err := s.insert(ctx, s.arena.Writer, e); err != nil {
				return s.refuse(ctx, err)
			}
		}
	}
	return nil
}

// refuse tells an answer that keeps the shop from writing, by a trigger, a lock
// or by ending its sessions, from a database that is down.
func (s *relaying) refuse(ctx context.Context, err error) error {
	if _, down := s.arena.DB.Exec(ctx, "SELECT 1"); down != nil {
		return errors.Join(err, down)
	}
	s.refused = err
	return nil
}

// How long the exchange stays without the queues that some events need, unless a
// row is settled before: long enough for a relay to try, and where none is bound
// at all, to give up trying.
const (
	unboundFor = 2200 * time.Millisecond
	partlyFor  = 400 * time.Millisecond
)

// In the unrouted variant the processes are asked to stop after askAfter. One that
// goes on for deafAfter is deaf: the contract has two seconds, a busy machine may
// need more.
const (
	askAfter  = 200 * time.Millisecond
	deafAfter = 4 * time.Second
)

// quietFor is how long the processes of a veteran run have nothing to do: pauses
// that grow from try to try have grown by then.
const quietFor = 8 * time.Second

// lateFor is how much longer the late transaction takes in its variant.
const lateFor = 1500 * time.Millisecond

// lostAfter is how long an event may be on its way after its row was settled.
const lostAfter = 200 * time.Millisecond

// floodAfter is how often one event may arrive before the relay counts as
// publishing it for ever.
const floodAfter = 100

func (s *relaying) Done(ctx context.Context) (bool, error) {
	if err := s.look(ctx); err != nil {
		return false, err
	}
	if s.refused != nil {
		return true, nil
	}
	settled := 0
	for _, e := range s.expected() {
		if s.settled[e.id.String()] {
			settled++
		}
	}
	if !s.bound {
		if err := s.route(settled); err != nil || s.deaf {
			return s.deaf, err
		}
	}
	seen, most := s.seen()
	if most > floodAfter {
		return true, nil
	}
	if settled < len(s.expected()) {
		s.completed = time.Time{}
		taken := slices.ContainsFunc(s.events, func(e *event) bool { return (e.second || e.late) && s.settled[e.id.String()] })
		s.leaderless = s.variant == veteran && s.second && !taken && time.Since(s.waveAt) > deafAfter
		return s.leaderless, nil
	}
	if s.completed.IsZero() {
		s.completed = time.Now()
	}
	if seen < len(s.expected()) && time.Since(s.completed) < lostAfter {
		return false, nil // still on their way, or lost
	}
	if !s.second && seen == len(s.expected()) {
		if s.variant == late && time.Since(s.completed) < lateFor {
			return false, nil
		}
		if s.variant == absent && s.asked.IsZero() {
			if err := s.askToStop(func(p *crash.Process) bool { return p.Slot > 0 }); err != nil {
				return false, err
			}
		}
		if s.variant == veteran && s.asked.IsZero() {
			if time.Since(s.started) < quietFor {
				return false, nil
			}
			leader := stage.LastPublisher(s.arena.Since)
			if err := s.askToStop(func(p *crash.Process) bool { return p.N == leader }); err != nil {
				return false, err
			}
		}
		if (s.variant == absent || s.variant == veteran) && s.stopping() {
			return s.deaf, nil
		}
		err := s.wave(ctx)
		return s.refused != nil, err
	}
	return true, nil
}

// route binds what is not bound yet when it is time for it.
func (s *relaying) route(settled int) error {
	age := time.Since(s.started)
	if s.variant == unrouted && settled == 0 {
		if s.asked.IsZero() && age > askAfter {
			if err := s.askToStop(func(*crash.Process) bool { return true }); err != nil {
				return err
			}
		}
		if s.stopping() {
			return nil
		}
	}
	wait := unboundFor
	if s.variant == partly {
		wait = partlyFor
	}
	if settled == 0 && age < wait {
		return nil
	}
	s.bound = true
	return s.listener.Bind("#")
}

// askToStop ends the context of some processes.
func (s *relaying) askToStop(which func(*crash.Process) bool) error {
	s.asked = time.Now()
	for p := range s.live {
		if which(p) {
			s.live[p] = true
			if err := p.Send(crash.Call{Stop: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// stopping says whether a process that was asked to stop still runs, and notes
// when it has for too long.
func (s *relaying) stopping() bool {
	for _, asked := range s.live {
		if asked {
			s.deaf = time.Since(s.asked) > deafAfter
			return true
		}
	}
	return false
}

// expected is the events that are committed so far.
func (s *relaying) expected() []*event {
	var out []*event
	for _, e := range s.events {
		if s.second || !e.second && !e.late {
			out = append(out, e)
		}
	}
	return out
}

// look reads which rows are settled.
func (s *relaying) look(ctx context.Context) error {
	rows, err := readOutbox(ctx, s.arena)
	if err != nil {
		return err
	}
	open := map[string]bool{}
	for _, r := range rows {
		open[r.id.String()] = r.published == nil
	}
	for _, e := range s.events {
		s.settled[e.id.String()] = !open[e.id.String()]
	}
	return s.listener.Lost()
}

// arrivals is what has arrived so far.
func (s *relaying) arrivals() []arrival {
	var out []arrival
	for _, d := range s.listener.Arrived() {
		out = append(out, arrival{Delivery: d, event: s.eventOf(d)})
	}
	return out
}

// eventOf is the event that has a message's id, or nil.
func (s *relaying) eventOf(d amqp.Delivery) *event { return s.byID[strings.ToLower(d.MessageId)] }

// seen counts the events that have arrived, and the arrivals of the most
// frequent one.
func (s *relaying) seen() (events, most int) {
	arrived := s.listener.Arrived()
	count := map[*event]int{}
	for _, d := range arrived {
		if e := s.eventOf(d); e != nil {
			count[e]++
			most = max(most, count[e])
		}
	}
	if len(arrived) > floodAfter*(len(s.events)+1) {
		most = floodAfter + 1
	}
	return len(count), most
}

func (s *relaying) Progress() int {
	n := 0
	for _, done := range s.settled {
		if done {
			n++
		}
	}
	seen, _ := s.seen()
	n += seen
	if s.bound {
		n++
	}
	if s.variant == veteran && s.asked.IsZero() {
		n += int(time.Since(s.started) / time.Second) // it waits on purpose
	}
	return n
}

func (s *relaying) State(ctx context.Context) (string, error) {
	if err := s.listener.Sync(ctx); err != nil {
		return "", err
	}
	rows, err := readOutbox(ctx, s.arena)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "second=%v bound=%v", s.second, s.bound)
	for _, r := range rows {
		e := s.byID[r.id.String()]
		if e == nil {
			fmt.Fprintf(&b, " stranger %s", r.id)
			continue
		}
		mark := "-"
		if r.published != nil {
			mark = "published"
			if age := time.Since(*r.published); age < -time.Minute || age > time.Hour {
				mark = r.published.String() // it means something to the answer
			}
		}
		fmt.Fprintf(&b, " %d:%s", e.n, mark)
	}
	b.WriteString(" arrived")
	arrivals := s.arrivals()
	first := map[*event]bool{}
	for _, a := range arrivals {
		if a.event != nil && !first[a.event] {
			first[a.event] = true
			fmt.Fprintf(&b, " %d", a.event.n)
		}
	}
	return b.String(), nil
}
