package crash

import (
	"context"
	"fmt"
	"time"
)

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
// something that was seen on the wires. While a service is at work for a process
// nothing is idle.
func (n *run) idle(now, seen time.Time) time.Duration {
	if n.calling() {
		return 0
	}
	d := now.Sub(seen)
	for _, p := range n.procs {
		if p.running() {
			d = min(d, now.Sub(n.busyAt[p.N]))
		}
	}
	return d
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
		doing := "been busy"
		if n.calling() {
			doing = "waited for a service"
		}
		return true, n.hang(ctx, fmt.Sprintf("the process has %s for %.0f seconds without achieving anything", doing, still.Seconds()))
	}
	return false, nil
}

// rested says whether p, part of whose conversation is swallowed, has done all
// that it will do. One that works on by its other connections, or tries again and
// again, never rests: it is given a while.
func (n *run) rested(p *Process, now time.Time, patience time.Duration) bool {
	if n.calls(now) {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if now.Sub(n.struckAt) > 2*longRest {
		return true
	}
	if now.Sub(n.lastWork) < patience || now.Sub(n.struckAt) < patience {
		return false
	}
	return now.Sub(n.busyAt[p.N]) >= min(patience, restAfter) || now.Sub(n.lastStep) < patience
}

// othersRest says whether the processes have done all that they will do while one
// message is held back.
func (n *run) othersRest(now time.Time) bool {
	calling := n.calling()
	n.mu.Lock()
	defer n.mu.Unlock()
	held := now.Sub(n.struckAt)
	if n.patient {
		return n.release != nil && held > hungAfter // longer than any lease should be
	}
	return n.release != nil && (held > 2*restAfter && now.Sub(n.lastWork) > 2*restAfter && !calling || held > longRest)
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
