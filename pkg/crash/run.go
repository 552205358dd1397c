package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	served, err := serveAll(r.spec.Services, n.scenario)
	if err != nil {
		return result{}, err
	}
	defer served.close()
	n.proxy, err = wire.New(wire.Config{
		Postgres: r.arena.postgresHost, AMQP: r.arena.amqpHost, Services: served.addrs,
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

// bury is called when a process has ended: it waits until the servers have
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
	case Expire:
		p.lane.EndIdle()
		return false, n.scenario.Delayed(ctx)
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
