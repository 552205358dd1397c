package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"time"

	"crashcourse/pkg/wire"
)

// Bounds of a run. None is waited for where something can be seen instead.
const (
	tick         = 10 * time.Millisecond
	restAfter    = 80 * time.Millisecond   // a process silent for so long, without using its CPU, rests
	longRest     = 1500 * time.Millisecond // the same where a timer of the answer's is waited out
	lookAfter    = 250 * time.Millisecond  // how often the memory of a talking process is looked at
	slowNack     = 60 * time.Millisecond   // a broker that refuses does so late: meanwhile the process may go on
	hungAfter    = 2500 * time.Millisecond // a process at rest for so long, with work to do, hangs
	stuckAfter   = 6 * time.Second         // a process that is busy for so long without achieving anything is stuck
	stopTimeout  = 2 * time.Second         // from being asked to stop to the end
	closeTimeout = 5 * time.Second         // for the servers to notice that a process has ended
	runTimeout   = 60 * time.Second
	maxRestarts  = 8 // in a row, without progress
)

// runner runs schedules of one spec and program in one arena.
type runner struct {
	spec    *Spec
	arena   *Arena
	program Program
	limits  Limits
	known   *states
}

// order is one run to make.
type order struct {
	schedule Schedule
	variant  string
	seed     uint64
	slack    time.Duration // factor for the bounds: 1, or more when a hang is being confirmed
	patient  bool          // after a blackhole wait out the answer's timers
	prune    bool
	golden   bool // also ask it to stop, and start it once more
	film     bool // keep what the tables hold, message by message
}

// result is what came of a run.
type result struct {
	outcome    Outcome
	violations []Violation
	trace      wire.Trace
	atCrash    []Table
	after      []Table
	scenes     []Scene
	output     string
	note       string
	refused    bool // the answer said that it is not implemented
	pruned     bool
	took       time.Duration
	struck     []Strike
	doneAt     int // messages in the trace when the work was done
}

// states remembers what outlived a crash and was recovered from.
type states struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (s *states) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[key]
}

func (s *states) add(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[key] = true
}

// run is the state of one run.
type run struct {
	*runner
	order
	scenario Scenario
	proxy    *wire.Proxy
	events   chan event
	activity chan struct{}         // capacity 1: something happened on the wires
	strikes  chan *Process         // a strike that the runner has to act on
	looks    chan chan wire.Action // one that a message waits for until the tables have been looked at
	procs    map[int]*Process

	mu       sync.Mutex // guards what the proxy's callbacks share with the loop
	next     int        // the strike that comes next
	counts   map[string]int
	lastStep time.Time
	lastWork time.Time // the last step that did more than look
	steps    map[int]int
	struck   []Strike // what has struck, where
	struckAt time.Time
	release  chan wire.Action // closed to let a delayed message pass

	result       result
	doneAt       int       // the number of messages when the work was done
	workDone     time.Time // since when it has been; zero: it is not
	progress     int
	progressAt   time.Time
	restarts     int
	dark         *Process  // it lives behind a blackhole
	darkAsked    time.Time // when that was asked to stop
	stateAtCrash string
	usage        map[int]usage
	usageAt      map[int]time.Time
	busyAt       map[int]time.Time
	ending       bool
}

// do makes one run. An error means that the run says nothing about the answer.
func (r *runner) do(ctx context.Context, o order) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	if o.slack == 0 {
		o.slack = 1
	}
	n := &run{runner: r, order: o,
		events: make(chan event, 64), activity: make(chan struct{}, 1), strikes: make(chan *Process, len(o.schedule)), looks: make(chan chan wire.Action, 64),
		procs: map[int]*Process{}, counts: map[string]int{}, steps: map[int]int{},
		usage: map[int]usage{}, usageAt: map[int]time.Time{}, busyAt: map[int]time.Time{}}
	rng := rand.New(rand.NewPCG(o.seed, 0x637261736820))
	var err error
	if n.scenario, err = r.spec.Scenario(r.arena, rng, o.variant); err != nil {
		return result{}, err
	}
	defer n.scenario.Close()
	r.arena.proxy = nil
	if err := n.arena.Clean(ctx); err != nil {
		return result{}, err
	}
	if err := n.scenario.Reset(ctx); err != nil {
		return result{}, err
	}
	n.proxy, err = wire.New(wire.Config{
		Postgres: r.arena.postgresHost, AMQP: r.arena.amqpHost,
		Decide: n.decide, Observe: n.observe, MaxTrace: 5000,
	})
	if err != nil {
		return result{}, err
	}
	defer n.proxy.Close()
	r.arena.proxy = n.proxy
	defer n.endAll(context.WithoutCancel(ctx))

	if n.film {
		tables, err := n.scenario.Tables(ctx)
		if err != nil {
			return result{}, err
		}
		n.result.scenes = []Scene{{Tables: tables}}
	}
	now := time.Now()
	n.progressAt, n.lastStep, n.lastWork = now, now, now
	for slot := range max(1, r.spec.Processes) {
		if err := n.launch(ctx, slot); err != nil {
			return result{}, err
		}
	}
	if err := n.loop(ctx); err != nil {
		return result{}, err
	}
	if n.result.outcome == "" && !n.result.refused {
		if err := n.conclude(ctx); err != nil {
			return result{}, err
		}
	}
	n.result.trace = n.named(n.proxy.Trace())
	n.result.struck = n.struck
	n.result.doneAt = n.doneAt
	if n.result.after, err = n.scenario.Tables(ctx); err != nil {
		return result{}, err
	}
	if n.film {
		n.scene(n.result.after)
	}
	for _, p := range n.procs {
		n.result.output += p.Output()
		if l := p.hit(); l != "" {
			n.result.note = l
		}
	}
	return n.result, nil
}

// named gives the faults in a trace the names they have here: the wire only
// knows what it did for them.
func (n *run) named(t wire.Trace) wire.Trace {
	for i := range t.Messages {
		m := &t.Messages[i]
		for _, s := range n.struck {
			if m.Step && m.Point == s.At {
				m.Fault = string(s.Fault)
			}
		}
	}
	return t
}

// decide is called under the wires' ordering lock.
func (n *run) decide(m *wire.Message) wire.Action {
	if !m.Step {
		return wire.Action{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lastStep = time.Now()
	switch m.Effect {
	case wire.Write, wire.Publish, wire.Ack, wire.Confirm, wire.Deliver, wire.Return:
		n.lastWork = n.lastStep
	}
	n.steps[m.Process]++
	if m.Fault == string(wire.Nack) && !n.ending {
		return wire.Action{Kind: wire.Delay, For: slowNack}
	}
	if n.ending {
		return wire.Action{}
	}
	if n.next >= len(n.schedule) {
		return n.filmed(m)
	}
	s := n.schedule[n.next]
	if s.Nth > 0 {
		if m.Protocol != s.At.Protocol || m.Dir != s.At.Dir || kindOf(m) != s.Kind || (n.processes() == 1 && m.Process != s.At.Process) {
			return n.filmed(m)
		}
		n.counts[s.String()]++
		if n.counts[s.String()] != s.Nth {
			return n.filmed(m)
		}
	} else if m.Point != s.At {
		return n.filmed(m)
	}
	n.next++
	n.struck = append(n.struck, Strike{At: m.Point, Message: m.Name, Fault: s.Fault})
	n.struckAt = n.lastStep
	action := s.Fault.action()
	if s.Fault == Delay {
		n.release = make(chan wire.Action)
		action.Until = n.release
	}
	n.strikes <- n.procs[m.Process] // has room for every strike of the schedule
	return action
}

// filmed holds back a message that tells of something lasting until the tables
// have been looked at. The caller holds mu.
func (n *run) filmed(m *wire.Message) wire.Action {
	if !n.film || m.Dir != wire.ToClient || m.Effect == wire.NoEffect {
		return wire.Action{}
	}
	pass := make(chan wire.Action, 1)
	select {
	case n.looks <- pass:
		return wire.Action{Kind: wire.Hold, Until: pass}
	default:
		return wire.Action{} // a scene less
	}
}

// scene adds what the tables hold now to the film.
func (n *run) scene(tables []Table) {
	s := Scene{After: n.proxy.Recorded(), Tables: tables}
	if k := len(n.result.scenes); k > 0 && reflect.DeepEqual(n.result.scenes[k-1].Tables, tables) {
		return
	}
	n.result.scenes = append(n.result.scenes, s)
}

// observe is called under the wires' ordering lock.
func (n *run) observe(m *wire.Message) {
	if m.Dir == wire.ToClient && m.Step {
		n.poke()
	}
}

func (n *run) poke() {
	select {
	case n.activity <- struct{}{}:
	default:
	}
}

func (n *run) processes() int { return max(1, n.spec.Processes) }

// launch starts a process for a slot.
func (n *run) launch(ctx context.Context, slot int) error {
	lane, err := n.proxy.Lane()
	if err != nil {
		return err
	}
	n.mu.Lock() // its first message must find it
	p, err := n.arena.start(n.program, lane, slot, n.limits, n.events)
	if err == nil {
		n.procs[p.N] = p
	}
	n.mu.Unlock()
	if err != nil {
		return err
	}
	n.busyAt[p.N], n.usageAt[p.N] = time.Now(), time.Now()
	return n.scenario.Started(ctx, p)
}

// bury is called when a process has ended: it waits until both servers have
// noticed, so that what the next one finds is what outlived this one.
func (n *run) bury(ctx context.Context, p *Process) error {
	p.cleanup()
	closing, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	if err := p.lane.Close(closing); err != nil {
		// A backend may wait for a lock and not look at its socket: end it.
		if terr := n.arena.endSessions(ctx); terr != nil {
			return errors.Join(err, terr)
		}
	}
	return n.scenario.Ended(ctx, p)
}

func (n *run) endAll(ctx context.Context) {
	n.mu.Lock()
	n.ending = true
	n.mu.Unlock()
	n.letGo()
	// All at once: sessions may wait for each other's locks.
	var all sync.WaitGroup
	for _, p := range n.procs {
		if p.buried {
			continue
		}
		p.lane.Freeze()
		all.Go(func() {
			p.kill()
			p.cleanup()
			closing, cancel := context.WithTimeout(ctx, closeTimeout)
			defer cancel()
			if p.lane.Close(closing) != nil {
				_ = n.arena.endSessions(closing)
			}
		})
	}
	all.Wait()
}

// loop runs until the work is done, an invariant is certain to be broken, or
// nothing more is to be expected.
func (n *run) loop(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	check := true
	for {
		if check {
			done, err := n.scenario.Done(ctx)
			if err != nil {
				return err
			}
			if p := n.scenario.Progress(); p != n.progress {
				n.progress, n.progressAt, n.restarts = p, time.Now(), 0
			}
			if !done {
				n.workDone = time.Time{}
			} else if n.settled() {
				n.doneAt = n.proxy.Recorded()
				return nil
			}
			check = false
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) == context.DeadlineExceeded {
				return n.hang(ctx, "the run did not end in a minute")
			}
			return ctx.Err()
		case <-n.activity:
			check = true
		case pass := <-n.looks:
			tables, err := n.scenario.Tables(ctx)
			if err != nil {
				return err
			}
			n.scene(tables)
			pass <- wire.Action{}
		case p := <-n.strikes:
			over, err := n.strike(ctx, p)
			if err != nil || over {
				return err
			}
			check = true
		case ev := <-n.events:
			over, err := n.handle(ctx, ev)
			if err != nil || over {
				return err
			}
			check = true
		case <-ticker.C:
			check = true
			over, err := n.watch(ctx)
			if err != nil || over {
				return err
			}
		}
	}
}

// settled says whether work that is done may count as done: where the spec asks
// for it, when all processes rest, or have had time for it.
func (n *run) settled() bool {
	if !n.spec.Rests {
		return true
	}
	if n.dark != nil && n.dark.running() || n.held() {
		return false // the servers still wait for it
	}
	now := time.Now()
	if n.workDone.IsZero() {
		n.workDone = now
	}
	if now.Sub(n.workDone) > longRest {
		return true
	}
	n.mu.Lock()
	last := n.lastWork
	n.mu.Unlock()
	return n.idle(now, last) >= restAfter
}

// idle is for how long no process has used its CPU, and at most the time since
// something that was seen on the wires.
func (n *run) idle(now, seen time.Time) time.Duration {
	d := now.Sub(seen)
	for _, p := range n.procs {
		if p.running() {
			d = min(d, now.Sub(n.busyAt[p.N]))
		}
	}
	return d
}

// strike acts on a fault that has just struck process p.
func (n *run) strike(ctx context.Context, p *Process) (over bool, err error) {
	n.mu.Lock()
	fault := n.schedule[n.next-1].Fault
	n.mu.Unlock()
	n.progressAt = time.Now()
	switch fault {
	case Kill:
		return n.crash(ctx, p)
	case Blackhole:
		n.dark, n.darkAsked = p, time.Time{}
	case Delay:
		return false, n.scenario.Delayed(ctx)
	}
	return false, nil
}

// crash kills p, looks at what outlives it, and starts its successor.
func (n *run) crash(ctx context.Context, p *Process) (over bool, err error) {
	if n.dark == p {
		n.dark = nil
	}
	p.kill()
	n.drop(p)
	if err := n.bury(ctx, p); err != nil {
		return false, err
	}
	if n.result.atCrash, err = n.scenario.Tables(ctx); err != nil {
		return false, err
	}
	if n.film {
		n.scene(n.result.atCrash)
	}
	n.mu.Lock()
	last := n.next == len(n.schedule)
	n.mu.Unlock()
	if last && n.processes() == 1 {
		if n.stateAtCrash, err = n.scenario.State(ctx); err != nil {
			return false, err
		}
		if own, err := n.arena.hasOwn(ctx); err != nil {
			return false, err
		} else if own {
			n.stateAtCrash = "" // what the answer keeps in tables of its own is not in the state
		}
		if n.stateAtCrash != "" && n.prune && n.known.has(n.stateAtCrash) {
			n.result.outcome, n.result.pruned = Held, true
			return true, nil
		}
	}
	n.progressAt = time.Now()
	return false, n.launch(ctx, p.Slot)
}

// drop forgets what the ended process still had to say, except that it ended.
func (n *run) drop(p *Process) {
	p.buried = true
}

// handle acts on what a process did by itself.
func (n *run) handle(ctx context.Context, ev event) (over bool, err error) {
	p := ev.process
	switch {
	case p.buried:
		return false, nil
	case ev.reply != nil:
		if ev.reply.NotImplemented {
			n.result.refused = true
			return true, nil
		}
		return false, n.scenario.Replied(ctx, p, *ev.reply)
	case ev.ended:
		// The strike that ended it may not have been looked at yet.
		select {
		case q := <-n.strikes:
			if over, err := n.strike(ctx, q); over || err != nil {
				return over, err
			}
		default:
		}
		if p.buried {
			return false, nil
		}
		n.drop(p)
		if n.dark == p {
			n.dark = nil
		}
		if err := n.bury(ctx, p); err != nil {
			return false, err
		}
		if l := p.hit(); l != "" {
			return true, n.hang(ctx, "the process "+l+" and was ended")
		}
		n.restarts++
		if n.restarts > maxRestarts*n.processes() {
			return true, n.hang(ctx, fmt.Sprintf("the process ended %d times in a row without achieving anything", n.restarts))
		}
		if n.restarts > n.processes() { // a supervisor does not start again in a hurry
			select {
			case <-ctx.Done():
				return false, ctx.Err()
			case <-time.After(time.Duration(n.restarts) * 15 * time.Millisecond):
			}
		}
		return false, n.launch(ctx, p.Slot)
	}
	return false, nil
}

// watch looks for processes that rest, hang or use too much.
func (n *run) watch(ctx context.Context) (over bool, err error) {
	now := time.Now()
	n.mu.Lock()
	lastStep := n.lastStep
	n.mu.Unlock()
	silent := now.Sub(lastStep)
	for _, p := range n.procs {
		// Looking costs more than most runs: look only when the wires are silent,
		// and otherwise now and then.
		age := now.Sub(n.usageAt[p.N])
		if !p.running() || age < 4*tick || silent < restAfter/2 && age < lookAfter {
			continue
		}
		u := p.usage()
		if u.known && u.cpu-n.usage[p.N].cpu > uint64(2*time.Millisecond) {
			n.busyAt[p.N] = now
		}
		n.usage[p.N], n.usageAt[p.N] = u, now
		if u.resident > n.limits.Memory {
			p.exceed(fmt.Sprintf("used more than %d MB of memory", n.limits.Memory>>20))
		}
	}
	if p := n.dark; p != nil && p.running() {
		patience := restAfter
		if n.patient {
			patience = longRest
		}
		if !n.rested(p, now, patience) {
			return false, nil
		}
		// It is ended as a supervisor would: asked first, and killed once it has done
		// what it does then.
		if n.spec.StopsWhenAsked != "" && n.darkAsked.IsZero() {
			n.darkAsked = now
			return false, p.Send(Call{Stop: true})
		}
		if now.Sub(n.darkAsked) < restAfter {
			return false, nil
		}
		return n.crash(ctx, p)
	}
	if n.othersRest(now) {
		n.letGo()
	}
	if n.held() {
		return false, nil
	}
	idle := n.idle(now, lastStep)
	still := now.Sub(n.progressAt)
	switch {
	case min(idle, still) > hungAfter*n.slack:
		return true, n.hang(ctx, fmt.Sprintf("nothing has moved for %.1f seconds, with work left to do", min(idle, still).Seconds()))
	case still > stuckAfter*n.slack:
		return true, n.hang(ctx, fmt.Sprintf("the process has been busy for %.0f seconds without achieving anything", still.Seconds()))
	}
	return false, nil
}

// rested says whether p, part of whose conversation is swallowed, has done all
// that it will do.
func (n *run) rested(p *Process, now time.Time, patience time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now.Sub(n.lastWork) < patience || now.Sub(n.struckAt) < patience {
		return false
	}
	return now.Sub(n.busyAt[p.N]) >= min(patience, restAfter) || now.Sub(n.lastStep) < patience
}

// othersRest says whether the processes have done all that they will do while one
// message is held back.
func (n *run) othersRest(now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	held := now.Sub(n.struckAt)
	if n.patient {
		return n.release != nil && held > hungAfter // longer than any lease should be
	}
	return n.release != nil && (held > 2*restAfter && now.Sub(n.lastWork) > 2*restAfter || held > longRest)
}

// held says whether a message is held back.
func (n *run) held() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.release != nil
}

// letGo lets a delayed message pass.
func (n *run) letGo() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.release != nil {
		close(n.release)
		n.release = nil
		n.progressAt = time.Now()
	}
}

// hang ends a run that would not end by itself.
func (n *run) hang(ctx context.Context, why string) error {
	n.result.outcome = Hung
	n.result.violations = []Violation{{Invariant: AllWorkDone, Detail: why}}
	more, err := n.scenario.Check(context.WithoutCancel(ctx), n.faults())
	if len(more) > 0 && more[0].Explains {
		n.result.violations = append(more, n.result.violations...)
	} else {
		n.result.violations = append(n.result.violations, more...)
	}
	return err
}

// faults is how many faults have struck.
func (n *run) faults() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.next
}

// AllWorkDone is the invariant that every spec has: the work is finished in each
// run, with and without faults.
const AllWorkDone = "all-work-done"

// conclude checks the invariants of a run whose work is done.
func (n *run) conclude(ctx context.Context) error {
	n.mu.Lock()
	reached := n.next == len(n.schedule)
	n.mu.Unlock()
	violations, err := n.scenario.Check(ctx, n.faults())
	if err != nil {
		return err
	}
	if len(violations) == 0 && n.golden {
		if violations, err = n.stopAndStartAgain(ctx); err != nil {
			return err
		}
	}
	n.result.violations = violations
	switch {
	case len(violations) > 0:
		n.result.outcome = Violated
	case !reached:
		n.result.outcome = Unreached
	default:
		n.result.outcome = Held
		if n.stateAtCrash != "" && len(n.schedule) > 0 {
			n.known.add(n.stateAtCrash)
		}
	}
	return nil
}

// stopAndStartAgain asks the processes to stop, starts one with nothing left to
// do, and checks once more.
func (n *run) stopAndStartAgain(ctx context.Context) ([]Violation, error) {
	if n.spec.StopsWhenAsked == "" {
		return nil, nil
	}
	n.mu.Lock()
	n.ending = true
	n.mu.Unlock()
	for _, p := range n.procs {
		if p.running() {
			if err := p.Send(Call{Stop: true}); err != nil {
				return nil, err
			}
		}
	}
	deadline := time.After(stopTimeout * n.slack)
	for _, p := range n.procs {
		select {
		case <-p.ended:
		case <-deadline:
			return []Violation{{Invariant: n.spec.StopsWhenAsked, Detail: fmt.Sprintf("two seconds after its context had ended, process %d was still running", p.N)}}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for _, p := range n.procs {
		if !p.buried {
			n.drop(p)
			if err := n.bury(ctx, p); err != nil {
				return nil, err
			}
		}
	}
	if err := n.scenario.Settle(ctx); err != nil {
		return nil, err
	}
	if err := n.launch(ctx, 0); err != nil {
		return nil, err
	}
	var last *Process
	for _, p := range n.procs {
		if last == nil || p.N > last.N {
			last = p
		}
	}
	// Until it has looked for work and come to rest, or looks again and again.
	began := time.Now()
	for last.running() && time.Since(began) < hungAfter {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-n.events:
		case <-time.After(tick):
		}
		if _, err := n.watch(ctx); err != nil {
			return nil, err
		}
		now := time.Now()
		n.mu.Lock()
		steps := n.steps[last.N]
		quiet := now.Sub(n.lastWork) > restAfter
		silent := now.Sub(n.lastStep) > restAfter && now.Sub(n.busyAt[last.N]) > restAfter
		n.mu.Unlock()
		if quiet && (steps > 12 || steps > 0 && silent) {
			break
		}
	}
	if _, err := n.scenario.Done(ctx); err != nil {
		return nil, err
	}
	return n.scenario.Check(ctx, 0)
}

// endSessions ends what the answer's role still has open on the server.
func (a *Arena) endSessions(ctx context.Context) error {
	_, err := a.DB.Exec(ctx, `SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity
		WHERE usename = $1 AND datname = current_database() AND application_name <> $2`, a.Role, writerName)
	if err != nil {
		return fmt.Errorf("crash: end the answer's sessions: %w", err)
	}
	return nil
}

// lastLines returns the end of a text.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
