package crash

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/wire"
)

// afterFailure is how long a quick sweep goes on after the first broken
// invariant, so that the matrix shows more than one point.
const afterFailure = 700 * time.Millisecond

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
		for _, v := range j.spec.Variants {
			if !v.Slow || j.options.Mode != Quick {
				jobs = append(jobs, job{variant: v.Name, says: v.Says, rank: len(jobs)})
			}
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
