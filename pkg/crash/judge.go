package crash

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/state"
	"crashcourse/pkg/wire"
)

// Options are the options of [Judge]. Zero values mean the defaults.
type Options struct {
	Mode     Mode          // Quick
	Seed     uint64        // every run's data follows from it; 0 is a seed like any other
	Workers  int           // runs at once; twice the CPUs, at most 8
	Limits   Limits        // of each process
	Schedule Schedule      // run only this, instead of a sweep
	Variant  string        // run only this variant, instead of a sweep
	Until    string        // stop as soon as this invariant has been seen broken
	Whole    bool          // Quick: try every point, also after an invariant broke
	Faults   []Fault       // only these of the spec's kinds, and no variants; nil is all
	Budget   time.Duration // no new run starts after this long; 80 s. Points that were left out are noted
	Replay   string        // the command that Failure.Replay begins with, before --seed and --at; "" leaves that empty
	Progress func(Progress)
}

// Progress says how far a judge has come.
type Progress struct {
	Done     int    `json:"done"`
	Total    int    `json:"total"` // may grow
	Violated int    `json:"violated"`
	Doing    string `json:"doing"`
}

// afterFailure is how long a quick sweep goes on after the first broken
// invariant, so that the matrix shows more than one point.
const afterFailure = 700 * time.Millisecond

// Judge runs program under spec: first without faults, then once for each point
// and fault that the mode asks for, and says what held. The verdict is Unjudged,
// with Error saying why, if the servers or the machine got in the way. The error
// is not nil only if ctx ended.
func Judge(ctx context.Context, servers state.Servers, spec *Spec, program Program, o Options) (Verdict, error) {
	if o.Mode == "" {
		o.Mode = Quick
	}
	if o.Workers == 0 {
		o.Workers = min(8, 2*runtime.NumCPU())
	}
	if o.Budget == 0 {
		o.Budget = 80 * time.Second
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	o.Limits = o.Limits.withDefaults()
	adoptOrphans()

	began := time.Now()
	j := &judging{spec: spec, options: o, began: began, known: &states{seen: map[string]bool{}}}
	j.verdict = Verdict{Version: 1, Exercise: spec.ID, Seed: o.Seed, Mode: string(o.Mode), Invariants: []InvariantResult{}, Points: []PointResult{}}
	err := j.judge(ctx, servers, program)
	if ctx.Err() != nil {
		return Verdict{}, fmt.Errorf("crash: judge %s: %w", spec.ID, context.Cause(ctx))
	}
	j.finish(err)
	j.verdict.DurationMS = time.Since(began).Milliseconds()
	return j.verdict, nil
}

// judging is one call of Judge.
type judging struct {
	spec    *Spec
	options Options
	began   time.Time
	known   *states
	arenas  []*Arena
	program Program

	darkened atomic.Bool // see darken

	mu        sync.Mutex
	verdict   Verdict
	broken    map[string]bool
	failed    time.Time // when the first invariant broke
	failure   *Failure
	failJob   job
	failPoint PointResult
	results   map[int]PointResult // by place in the sweep
	total     int
	skipped   int
	refused   bool
}

func (j *judging) judge(ctx context.Context, servers state.Servers, program Program) error {
	j.broken, j.results = map[string]bool{}, map[int]PointResult{}
	scratch, err := makeScratch()
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if j.program, err = copyProgram(program, scratch); err != nil {
		return err
	}
	workers := j.options.Workers
	if len(j.options.Schedule) > 0 {
		workers = 1
	}
	j.options.Progress(Progress{Doing: "preparing databases and virtual hosts"})
	if err := j.openArenas(ctx, servers, workers, scratch); err != nil {
		return err
	}
	defer j.closeArenas()

	if len(j.options.Schedule) > 0 || j.options.Variant != "" {
		return j.one(ctx)
	}
	golden, ok, err := j.goldens(ctx)
	if err != nil {
		return err
	}
	if !ok {
		return j.film(ctx)
	}
	if err := j.sweep(ctx, golden); err != nil {
		return err
	}
	return j.film(ctx)
}

// film makes the failing run once more, and keeps what the tables and queues
// held message by message. One that goes another way this time is not used.
func (j *judging) film(ctx context.Context) error {
	if j.failure == nil || j.failPoint.Outcome != Violated {
		return nil
	}
	b := j.failJob
	j.options.Progress(Progress{Doing: "filming the run that failed", Done: len(j.results), Total: j.total})
	res, err := j.try(ctx, j.runner(j.arenas[0]), order{schedule: b.schedule, variant: b.variant, patient: b.patient, golden: b.rank < 0, film: true})
	if err != nil {
		return err
	}
	if len(res.violations) > 0 && res.violations[0].Invariant == j.failure.Invariant {
		j.failPoint.Detail = res.violations[0].Detail
		j.failure = j.tell(b, j.failPoint, res)
	}
	return nil
}

// openArenas opens as many arenas as it can get, at least one.
func (j *judging) openArenas(ctx context.Context, servers state.Servers, n int, scratch string) error {
	kids := &nursery{pids: map[int]bool{}}
	var mu sync.Mutex
	next := 0
	g, gctx := errgroup.WithContext(ctx)
	for range n {
		g.Go(func() error {
			for {
				mu.Lock()
				slot := next
				next++
				mu.Unlock()
				if slot >= 64 {
					return nil
				}
				a, err := openArena(gctx, servers, j.spec, slot, scratch, kids)
				if errors.Is(err, errArenaTaken) {
					continue
				}
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				j.arenas = append(j.arenas, a)
				for range j.spec.processes() {
					addr, err := freeAddr(func(addr string) bool {
						return slices.ContainsFunc(j.arenas, func(a *Arena) bool { return slices.Contains(a.addrs, addr) })
					})
					if err != nil {
						return err
					}
					a.addrs = append(a.addrs, addr)
				}
				return nil
			}
		})
	}
	if err := g.Wait(); err != nil {
		j.closeArenas()
		return err
	}
	if len(j.arenas) == 0 {
		return errors.New("crash: all arenas are taken by other judges: wait for one to end")
	}
	return nil
}

func (j *judging) closeArenas() {
	for _, a := range j.arenas {
		a.close()
	}
	j.arenas = nil
}

func (j *judging) runner(a *Arena) *runner {
	return &runner{spec: j.spec, arena: a, program: j.program, limits: j.options.Limits, known: j.known}
}

// seed gives each run data of its own that a replay finds again.
func (j *judging) seed(schedule Schedule, variant string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %s", j.options.Seed, schedule, variant)
	return h.Sum64()
}

// try makes a run, once more if the infrastructure failed, and once more with
// twice the patience if it hung.
func (j *judging) try(ctx context.Context, r *runner, o order) (res result, err error) {
	o.seed = j.seed(o.schedule, o.variant)
	j.count()
	began := time.Now()
	defer func() { res.took = time.Since(began) }()
	res, err = r.do(ctx, o)
	if err != nil && ctx.Err() == nil {
		res, err = r.do(ctx, o)
	}
	if err != nil {
		return res, err
	}
	if res.outcome == Hung && res.note == "" && !j.over() {
		o.slack = 2
		j.count()
		again, err := r.do(ctx, o)
		if err == nil {
			res = again
		}
	}
	return res, nil
}

func (j *judging) count() {
	j.mu.Lock()
	j.verdict.Runs++
	j.mu.Unlock()
}

// one makes a single run, for a replay.
func (j *judging) one(ctx context.Context) error {
	c := candidate{}
	res, err := j.try(ctx, j.runner(j.arenas[0]), order{schedule: j.options.Schedule, variant: j.options.Variant, patient: true, film: true})
	if err != nil {
		return err
	}
	if len(j.options.Schedule) > 0 {
		c.Strike = j.options.Schedule[0]
	}
	j.record(job{candidate: c, schedule: j.options.Schedule, variant: j.options.Variant}, res)
	j.verdict.Golden, j.verdict.Output = &res.trace, lastLines(res.output, 40)
	return nil
}

// goldens runs the program without faults, in every arena at once.
func (j *judging) goldens(ctx context.Context) (result, bool, error) {
	j.options.Progress(Progress{Doing: "running it without faults"})
	results := make([]result, 1+min(len(j.arenas)-1, j.spec.processes()-1))
	g, gctx := errgroup.WithContext(ctx)
	for i := range results {
		g.Go(func() error {
			var err error
			results[i], err = j.try(gctx, j.runner(j.arenas[i]), order{golden: true, schedule: nil, variant: ""})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return result{}, false, err
	}
	for _, res := range results {
		if res.refused {
			j.refused = true
			return res, false, nil
		}
		if res.outcome != Held {
			j.record(job{rank: -1}, res)
			return res, false, nil
		}
	}
	j.verdict.Golden = &results[0].trace
	return results[0], true, nil
}

// job is one run of the sweep.
type job struct {
	candidate
	schedule Schedule
	variant  string
	says     string
	rank     int // place in the sweep
	attempt  int
}

// sweep tries every candidate.
func (j *judging) sweep(ctx context.Context, golden result) error {
	n := j.spec.processes()
	steps := stepsOf(golden.trace, golden.doneAt, 1, n)
	var jobs []job
	faults := j.options.Faults
	if faults == nil {
		faults = j.spec.Faults
		for i, v := range j.spec.Variants {
			jobs = append(jobs, job{variant: v.Name, says: v.Says, rank: i})
		}
	}
	for _, c := range candidates(steps, faults, j.options.Mode, n > 1) {
		jobs = append(jobs, job{candidate: c, schedule: Schedule{c.Strike}, rank: len(jobs)})
	}
	q := &queue{jobs: jobs, wake: make(chan struct{})}
	j.total = len(jobs)
	g, gctx := errgroup.WithContext(ctx)
	for _, a := range j.arenas {
		g.Go(func() error {
			r := j.runner(a)
			for {
				job, ok := q.take(gctx)
				if !ok {
					return gctx.Err()
				}
				if j.over() {
					j.skip(job)
					q.done()
					continue
				}
				err := j.runJob(gctx, r, job, q)
				q.done()
				if err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// over says that no further run is wanted.
func (j *judging) over() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if time.Since(j.began) > j.options.Budget {
		return true
	}
	if j.options.Until != "" {
		return j.broken[j.options.Until]
	}
	return j.options.Mode == Quick && !j.options.Whole && !j.failed.IsZero() && time.Since(j.failed) > afterFailure
}

func (j *judging) skip(job) {
	j.mu.Lock()
	j.skipped++
	j.mu.Unlock()
}

func (j *judging) runJob(ctx context.Context, r *runner, b job, q *queue) error {
	res, err := j.try(ctx, r, order{schedule: b.schedule, variant: b.variant, patient: b.patient, prune: j.options.Mode != Unpruned})
	if err != nil {
		return err
	}
	if res.outcome == Unreached && b.attempt < 2 {
		// Once more, looking for a message of its kind, and then for an earlier one
		// of that kind: how many there are can differ from run to run.
		b.attempt++
		b.schedule = slices.Clone(b.schedule)
		last := &b.schedule[len(b.schedule)-1]
		if last.Nth == 0 {
			last.Nth = j.nth(last.At)
		} else {
			last.Nth = (last.Nth + 1) / 2
		}
		q.add(b)
		return nil
	}
	j.record(b, res)
	if j.options.Mode == Full && len(b.schedule) == 1 && b.Fault == Kill && res.outcome == Held && !res.pruned && j.spec.processes() == 1 {
		j.deepen(b, res, q)
	}
	if len(b.schedule) == 1 && b.Fault == Cut && b.At.Protocol == wire.AMQP && res.outcome == Held && j.spec.processes() == 1 {
		j.darken(b, res, q)
	}
	return nil
}

// darken adds a blackhole at the first publish of a connection that the process
// made in place of a broken one, once: what was set up on the first one may have
// been forgotten on the second.
func (j *judging) darken(b job, res result, q *queue) {
	for _, m := range res.trace.Messages {
		if m.Effect != wire.Publish || m.Process != b.At.Process || m.Conn <= b.At.Conn {
			continue
		}
		second := Strike{At: m.Point, Message: m.Name, Kind: kindOf(&m), Fault: Blackhole}
		if j.darkened.CompareAndSwap(false, true) {
			add := job{candidate: b.candidate, schedule: Schedule{b.schedule[0], second}}
			add.patient = true
			j.enqueue(q, add)
		}
		return
	}
}

// enqueue adds a run to the sweep, behind all that it has.
func (j *judging) enqueue(q *queue, b job) {
	j.mu.Lock()
	b.rank = j.total
	j.total++
	j.mu.Unlock()
	q.add(b)
}

// nth is the place of a golden step among those of its name.
func (j *judging) nth(at wire.Point) int {
	for _, s := range stepsOf(*j.verdict.Golden, len(j.verdict.Golden.Messages), 1, j.spec.processes()) {
		if s.Point == at {
			return s.nth
		}
	}
	return 1
}

// deepen adds a second crash at each state that the recovery passes through.
func (j *judging) deepen(b job, res result, q *queue) {
	second := b.At.Process + 1
	steps := stepsOf(res.trace, res.doneAt, second, second)
	for _, c := range candidates(steps, []Fault{Kill}, Quick, false) {
		j.enqueue(q, job{candidate: b.candidate, schedule: Schedule{b.schedule[0], c.Strike}})
	}
}

// record keeps what a run showed.
func (j *judging) record(b job, res result) {
	p := PointResult{At: "start", Message: "the first message", Outcome: res.outcome, Pruned: res.pruned, DurationMS: res.took.Milliseconds()}
	switch {
	case b.variant != "":
		p.Fault, p.Message = b.variant, b.says
	case len(b.schedule) > 0:
		s := b.schedule[0]
		if len(res.struck) > 0 && s.Message == "" {
			s.Message = res.struck[0].Message // a replay knows only the point
		}
		p.At, p.Message, p.Fault = s.At.String(), s.Message, string(s.Fault)
	}
	if len(b.schedule) > 1 {
		p.Then = b.schedule[1].String() + " " + b.schedule[1].Message
	}
	if len(res.violations) > 0 {
		p.Violation, p.Detail = res.violations[0].Invariant, res.violations[0].Detail
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, v := range res.violations {
		j.broken[v.Invariant] = true
	}
	if len(res.violations) > 0 {
		if j.failed.IsZero() {
			j.failed = time.Now()
		}
		if j.failure == nil || b.rank < j.failJob.rank {
			j.failJob, j.failPoint = b, p
			j.failure = j.tell(b, p, res)
			j.verdict.Output = lastLines(res.output, 40)
		}
	}
	if res.note != "" {
		j.note("a process " + res.note)
	}
	j.results[b.rank] = p
	progress := Progress{Done: len(j.results), Total: j.total, Doing: "crashing it"}
	for _, r := range j.results {
		if r.Violation != "" {
			progress.Violated++
		}
	}
	j.options.Progress(progress)
}

func (j *judging) note(s string) {
	if !slices.Contains(j.verdict.Notes, s) {
		j.verdict.Notes = append(j.verdict.Notes, s)
	}
}

// finish draws the verdict.
func (j *judging) finish(err error) {
	v := &j.verdict
	for _, i := range append([]Invariant{allWorkDone}, j.spec.Invariants...) {
		v.Invariants = append(v.Invariants, InvariantResult{Name: i.Name, Held: !j.broken[i.Name], Says: i.Says})
	}
	survived, reached := 0, 0
	for _, rank := range sortedKeys(j.results) {
		p := j.results[rank]
		v.Points = append(v.Points, p)
		if p.Outcome != Unreached {
			reached++
		}
		if p.Outcome == Held {
			survived++
		}
	}
	if reached > 0 {
		v.Score = float64(survived) / float64(reached)
	}
	if j.skipped > 0 {
		why := "the time was up"
		if j.failure != nil {
			why = "the failure above came first"
		}
		j.note(fmt.Sprintf("%d points were not tried: %s", j.skipped, why))
	}
	v.Failure = j.failure
	switch {
	case j.refused:
		v.Verdict, v.Score = Fail, 0
		v.Error = "not implemented yet: replace the line that returns exercise.ErrNotImplemented with your answer"
		for i := range v.Invariants {
			v.Invariants[i].Held = false
		}
	case j.failure != nil:
		v.Verdict = Fail
		if j.failJob.rank < 0 {
			v.Score = 0 // it fails without any fault
		}
	case err != nil:
		v.Verdict, v.Score = Unjudged, 0
		v.Error = err.Error()
	case reached == 0 && len(j.options.Schedule) == 0:
		v.Verdict = Unjudged
		v.Error = "no point was reached"
	default:
		v.Verdict = Pass
	}
}

func (s *Spec) processes() int { return max(1, s.Processes) }

// allWorkDone is part of every spec.
var allWorkDone = Invariant{
	Name:     AllWorkDone,
	Says:     "All work is finished in every run, with and without a fault.",
	Expected: "A process that ends is started again, and goes on where the tables and queues say it stands.",
	Hints: []string{
		"Look at the last step in the picture: what is the program waiting for?",
		"After a connection broke, does every wait come to an end, with an error if need be? Return that error: you are started again.",
		"Look for a channel that nobody sends on after a close, a loop that goes round without a pause, and a transaction that was never rolled back.",
	},
}

func sortedKeys[V any](m map[int]V) []int { return slices.Sorted(maps.Keys(m)) }
