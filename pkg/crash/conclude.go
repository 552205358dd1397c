package crash

import (
	"context"
	"fmt"
	"time"
)

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
		now, calling := time.Now(), n.calling()
		n.mu.Lock()
		steps := n.steps[last.N]
		quiet := now.Sub(n.lastWork) > restAfter
		silent := !calling && now.Sub(n.lastStep) > restAfter && now.Sub(n.busyAt[last.N]) > restAfter
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
