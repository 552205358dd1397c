package breaker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
)

// many is how many callers come at once.
const many = 100

func probeSpec() *crash.Spec {
	return &crash.Spec{
		ID:         "breaker/probe",
		Services:   []string{"payments"},
		Invariants: []crash.Invariant{probeLimit, recovers, openMeansNoCalls, answeredInTime, noFalseTrip, chargedOnce, trueAnswer},
		Variants: []crash.Variant{
			{Name: "failing probe", Says: "one probe fails, and the others succeed after it"},
			{Name: "hung probe", Says: "the service hangs, probes too"},
			{Name: "left probe", Says: "the client of a probe hangs up"},
			{Name: "late call", Says: "a call from before the circuit opened ends while it is half-open"},
		},
		Scenario: func(_ *crash.Arena, rng *rand.Rand, variant string) (crash.Scenario, error) {
			s := settings(rng)
			s.Reset, s.Probes = 400*time.Millisecond, 2+rng.IntN(2)
			script := probeCrowd
			switch variant {
			case "failing probe":
				s.Reset, script = 1500*time.Millisecond, probeFails
			case "hung probe":
				s.Timeout, s.Probes, script = 400*time.Millisecond, 1, probeHangs
			case "left probe":
				s.Probes, script = 1, probeLeft
			case "late call":
				s.Probes, script = 1, probeLate
			}
			return newPlay(rng, s, script), nil
		},
	}
}

// crowd makes calls at once while the service holds what reaches it. It returns when
// each of them is answered or held, and looks that no more are held than there may be.
func (p *play) crowd(ctx context.Context, n, most int, until time.Time) error {
	p.service.turn(holds)
	var calls []*call
	for range n {
		calls = append(calls, p.call(ctx))
	}
	for _, c := range calls {
		ok, err := p.await(ctx, time.Second, func() bool { return c.answered() || p.reached(c) })
		if err != nil {
			return err
		}
		if !ok {
			return p.breaks(answeredInTime, "%d calls came while the circuit was half-open; call %d is neither made nor rejected, %.1f seconds later", n, c.n, time.Since(c.began).Seconds())
		}
		if r := p.service.of(c.ID); len(r) > 0 && r[0].at.Before(until) {
			return p.breaks(openMeansNoCalls, "call %d reached the service, and Reset, which is %v, was not over", c.n, p.settings.Reset)
		}
	}
	if held := p.service.held(); held > most {
		return p.breaks(probeLimit, "%d calls are under way at the service while the circuit is half-open, and Probes is %d", held, p.settings.Probes)
	}
	return nil
}

// halfOpen waits until the circuit is half-open, and has a crowd come: at least one of
// it is held as a probe then.
func (p *play) halfOpen(ctx context.Context, n, already int, until time.Time) error {
	if err := pause(ctx, time.Until(until)); err != nil {
		return err
	}
	var broken error
	ok, err := p.await(ctx, p.settings.Reset, func() bool {
		if p.service.held() > already {
			return true
		}
		broken = p.crowd(ctx, n, already+p.settings.Probes, until)
		return broken != nil || p.service.held() > already
	})
	switch {
	case err != nil:
		return err
	case broken != nil:
		return broken
	case !ok:
		return p.breaks(recovers, "Reset is %v, and more than %v after it no call has been let through", p.settings.Reset, late)
	}
	return nil
}

// probing returns the calls that are held, in the order in which they are released.
func (p *play) probing() (out []*call) {
	p.mu.Lock()
	calls := map[string]*call{}
	for _, c := range p.calls {
		calls[c.ID] = c
	}
	p.mu.Unlock()
	for _, r := range p.service.all() {
		if c := calls[r.ID]; c != nil && r.tell != nil && !r.gone {
			out = append(out, c)
		}
	}
	return out
}

func probeCrowd(ctx context.Context, p *play) error {
	opened, err := p.open(ctx, down)
	if err != nil {
		return err
	}
	if err := p.shut(ctx, many/4, opened.Add(p.settings.Reset), "Reset was not over"); err != nil {
		return err
	}
	if err := p.halfOpen(ctx, many, 0, opened.Add(p.settings.Reset)); err != nil {
		return err
	}
	first := p.probing()
	p.service.release(1, well) // of two or three: it stays half-open
	if err := p.settle(ctx, first[:1]...); err != nil {
		return err
	}
	if err := p.crowd(ctx, many, p.settings.Probes, opened); err != nil {
		return err
	}
	// Now all of them succeed, and those that may still be missing.
	rest := p.probing()
	p.service.turn(well)
	p.service.release(-1, well)
	if err := p.settle(ctx, rest...); err != nil {
		return err
	}
	if err := p.recover(ctx, 1+len(rest)); err != nil {
		return err
	}
	var calls []*call
	for range many / 4 {
		calls = append(calls, p.call(ctx))
	}
	if err := p.settle(ctx, calls...); err != nil {
		return err
	}
	for _, c := range calls {
		if !p.reached(c) {
			return p.breaks(recovers, "call %d did not reach the service: %d probes had succeeded, as many as close the circuit, and none has failed since", c.n, p.settings.Probes)
		}
	}
	return nil
}

func probeFails(ctx context.Context, p *play) error {
	opened, err := p.open(ctx, down)
	if err != nil {
		return err
	}
	if err := p.halfOpen(ctx, many, 0, opened.Add(p.settings.Reset)); err != nil {
		return err
	}
	probes := p.probing()
	p.service.release(1, down)
	if err := p.settle(ctx, probes[0]); err != nil {
		return err
	}
	failed := p.service.of(probes[0].ID)[0].saidAt
	p.service.turn(well)
	p.service.release(-1, well)
	if err := p.settle(ctx, probes[1:]...); err != nil {
		return err
	}
	why := "a probe had failed before, and Reset was not over"
	for range 2 {
		if err := p.shut(ctx, many/4, failed.Add(p.settings.Reset), why); err != nil {
			return err
		}
	}
	return p.recover(ctx, 0)
}

func probeHangs(ctx context.Context, p *play) error {
	opened, err := p.open(ctx, hangs)
	if err != nil {
		return err
	}
	if err := p.shut(ctx, 5, opened.Add(p.settings.Reset), fmt.Sprintf("%d calls had hung for longer than Timeout, and Reset was not over", p.settings.Volume)); err != nil {
		return err
	}
	// A few probes that hang: each gives way to the next.
	for range 3 {
		before := len(p.service.all())
		var broken error
		ok, err := p.await(ctx, p.settings.Reset+p.settings.Timeout, func() bool {
			_, broken = p.one(ctx)
			return broken != nil || len(p.service.all()) > before
		})
		switch {
		case err != nil:
			return err
		case broken != nil:
			return broken
		case !ok:
			return p.breaks(recovers, "a probe hangs, Timeout is %v and Reset is %v, and more than %v later no other has been let through", p.settings.Timeout, p.settings.Reset, late)
		}
	}
	p.service.turn(well)
	return p.recover(ctx, 0)
}

func probeLeft(ctx context.Context, p *play) error {
	opened, err := p.open(ctx, down)
	if err != nil {
		return err
	}
	if err := p.halfOpen(ctx, 10, 0, opened.Add(p.settings.Reset)); err != nil {
		return err
	}
	for _, c := range p.probing() {
		c.hangUp()
	}
	p.service.turn(well)
	if _, err := p.await(ctx, 0, func() bool { return p.service.held() == 0 }); err != nil {
		return err
	}
	return p.recover(ctx, 0)
}

func probeLate(ctx context.Context, p *play) error {
	p.service.turn(holds)
	before := p.call(ctx)
	ok, err := p.await(ctx, time.Second, func() bool { return p.reached(before) })
	if err != nil {
		return err
	}
	if !ok {
		return p.breaks(noFalseTrip, "call 1 did not reach the service: none has failed so far")
	}
	opened, err := p.open(ctx, down)
	if err != nil {
		return err
	}
	if err := p.halfOpen(ctx, many/4, 1, opened.Add(p.settings.Reset)); err != nil {
		return err
	}
	p.service.release(1, well) // the oldest: the one from before
	if err := p.settle(ctx, before); err != nil {
		return err
	}
	if err := p.crowd(ctx, many/4, p.settings.Probes, opened); err != nil {
		return err
	}
	rest := p.probing()
	p.service.turn(well)
	p.service.release(-1, well)
	if err := p.settle(ctx, rest...); err != nil {
		return err
	}
	return p.through(ctx, p.settings.Volume, well, recovers, stage.Count(len(rest), "probe")+" had succeeded after Reset, and none had failed since")
}
