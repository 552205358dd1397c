package breaker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"crashcourse/exercises/breaker"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
)

// Long is what never comes to an end within a run, and amply what a call that works
// may take on a busy machine.
const (
	long  = time.Hour
	amply = 10 * time.Second
)

func settings(rng *rand.Rand) breaker.Settings {
	return breaker.Settings{Timeout: amply, FailureRate: 50, Volume: 4 + rng.IntN(2), Window: long, Reset: long, Probes: 1}
}

func guardSpec() *crash.Spec {
	return &crash.Spec{
		ID:         "breaker/guard",
		Services:   []string{"payments"},
		Invariants: []crash.Invariant{answeredInTime, openMeansNoCalls, noFalseTrip, recovers, chargedOnce, trueAnswer},
		Variants: []crash.Variant{
			{Name: "hanging", Says: "the service takes the money and never answers"},
			{Name: "few", Says: "fewer calls fail than Volume"},
			{Name: "declines", Says: "the service declines most payments, and a third of the others fails"},
			{Name: "hang-ups", Says: "clients hang up while the service is at work"},
			{Name: "old", Says: "calls fail now and then, over longer than Window"},
			{Name: "recovery", Says: "the service is down for a while"},
		},
		Scenario: func(_ *crash.Arena, rng *rand.Rand, variant string) (crash.Scenario, error) {
			s := settings(rng)
			script := guardOpens
			switch variant {
			case "hanging":
				s.Timeout, script = 150*time.Millisecond, guardHanging
			case "few":
				script = guardFew
			case "declines":
				script = guardDeclines
			case "hang-ups":
				script = guardHangUps
			case "old":
				s.Window, script = 300*time.Millisecond, guardOld
			case "recovery":
				s.Reset, script = 400*time.Millisecond, guardRecovery
			}
			return newPlay(rng, s, script), nil
		},
	}
}

// guardOpens has the service work, and then be down.
func guardOpens(ctx context.Context, p *play) error {
	if err := p.through(ctx, 2, well, noFalseTrip, "none has failed so far"); err != nil {
		return err
	}
	p.service.turn(down)
	ended, failed := 2, 0
	for ended < p.settings.Volume || 100*failed < p.settings.FailureRate*ended {
		c, err := p.one(ctx)
		if err != nil {
			return err
		}
		if !p.reached(c) {
			return p.breaks(noFalseTrip, "call %d did not reach the service: of %s before it %d had failed, with a Volume of %d", c.n, stage.Count(ended, "call"), failed, p.settings.Volume)
		}
		ended++
		failed++
	}
	why := fmt.Sprintf("%d of %d calls had failed before, and Reset was not over", failed, ended)
	for range 3 {
		if err := p.shut(ctx, 1, time.Now().Add(long), why); err != nil {
			return err
		}
	}
	p.service.turn(well) // which nobody can know
	return p.shut(ctx, 10, time.Now().Add(long), why)
}

func guardHanging(ctx context.Context, p *play) error {
	if _, err := p.open(ctx, hangs); err != nil {
		return err
	}
	return p.shut(ctx, 5, time.Now().Add(long), fmt.Sprintf("%d calls had hung for longer than Timeout before, and Reset was not over", p.settings.Volume))
}

func guardFew(ctx context.Context, p *play) error {
	n := p.settings.Volume - 1
	if err := p.through(ctx, n, down, noFalseTrip, fmt.Sprintf("fewer calls than Volume, which is %d, had ended", p.settings.Volume)); err != nil {
		return err
	}
	return p.through(ctx, 1, well, noFalseTrip, fmt.Sprintf("%d calls had failed, and Volume is %d", n, p.settings.Volume))
}

func guardDeclines(ctx context.Context, p *play) error {
	const why = "most payments were declined, which is an answer, and fewer calls than FailureRate had failed"
	for range p.settings.Volume {
		for _, m := range []mode{well, declines, declines, declines, down} {
			if err := p.through(ctx, 1, m, noFalseTrip, why); err != nil {
				return err
			}
		}
	}
	return p.through(ctx, 1, well, noFalseTrip, why)
}

func guardHangUps(ctx context.Context, p *play) error {
	p.service.turn(holds)
	var calls []*call
	for range 2 * p.settings.Volume {
		calls = append(calls, p.call(ctx))
	}
	for _, c := range calls {
		ok, err := p.await(ctx, amply, func() bool { return p.reached(c) })
		if err != nil {
			return err
		}
		if !ok {
			return p.breaks(noFalseTrip, "call %d did not reach the service: none had failed so far", c.n)
		}
	}
	for _, c := range calls {
		c.hangUp()
	}
	// Until the answer has had to do with it. One that lets the calls run on has not.
	if _, err := p.await(ctx, 0, func() bool { return p.service.held() == 0 }); err != nil {
		return err
	}
	return p.through(ctx, p.settings.Volume, well, noFalseTrip, fmt.Sprintf("%d clients had hung up, and no call had failed", len(calls)))
}

func guardOld(ctx context.Context, p *play) error {
	for range 3 {
		if err := p.through(ctx, p.settings.Volume-2, down, noFalseTrip,
			fmt.Sprintf("fewer calls than Volume, which is %d, had failed within the last %v", p.settings.Volume, p.settings.Window)); err != nil {
			return err
		}
		if err := pause(ctx, 3*p.settings.Window); err != nil {
			return err
		}
	}
	return p.through(ctx, 1, well, noFalseTrip, fmt.Sprintf("no call had failed within the last %v", p.settings.Window))
}

func guardRecovery(ctx context.Context, p *play) error {
	opened, err := p.open(ctx, down)
	if err != nil {
		return err
	}
	p.service.turn(well)
	if err := p.shut(ctx, 3, opened.Add(p.settings.Reset), "Reset was not over"); err != nil {
		return err
	}
	if err := p.recover(ctx, 0); err != nil {
		return err
	}
	return p.through(ctx, p.settings.Volume, well, recovers, fmt.Sprintf("%s had succeeded after Reset, and none had failed since", stage.Count(p.settings.Probes, "probe")))
}

// recover makes calls, one after the other, until as many as Probes have succeeded,
// with those that did before.
func (p *play) recover(ctx context.Context, before int) error {
	successes := before
	for {
		reached := len(p.service.all())
		var last error
		ok, err := p.await(ctx, p.settings.Reset+min(p.settings.Timeout, time.Second), func() bool {
			if successes >= p.settings.Probes {
				return true
			}
			var c *call
			if c, last = p.one(ctx); last == nil && c.charged() {
				successes++
			}
			return last != nil || successes >= p.settings.Probes
		})
		switch {
		case err != nil:
			return err
		case last != nil || ok:
			return last
		case len(p.service.all()) > reached: // probes are made, and take too long: the machine is busy
			continue
		case successes > 0:
			return p.breaks(recovers, "the service works again, and let %s succeed of the %d that close the circuit; it is not let through to any more", stage.Count(successes, "probe"), p.settings.Probes)
		}
		return p.breaks(recovers, "the service works again, Reset is %v, and more than %v later no call has got through", p.settings.Reset, late)
	}
}
