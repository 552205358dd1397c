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
