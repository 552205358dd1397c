package breaker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"crashcourse/exercises/breaker"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
)

// Bounds that are judged. A machine may be busy: what is late is late only if the
// process has meanwhile answered so many pings, one after the other.
const (
	late  = 2 * time.Second // beyond what it may take
	pings = 15
)

// play is what the scenarios of a breaker without a database have in common: a script
// that turns the service's dial, calls, and looks which calls reached the service.
type play struct {
	crash.Quiet
	rng      *rand.Rand
	settings breaker.Settings
	script   func(ctx context.Context, p *play) error
	service  *service

	http  *http.Client
	addr  string
	leave context.CancelFunc
	actor sync.WaitGroup

	mu    sync.Mutex
	calls []*call
	found []crash.Violation
	steps int
	over  bool
	err   error // the judge could not go on
}

// call is a client's call of the checkout.
type call struct {
	breaker.Payment
	n      int // from 1
	began  time.Time
	done   chan struct{} // closed when it is answered, or has failed
	hangUp context.CancelFunc

	// Written before done is closed.
	status int // 0: there was no answer
	word   string
}

// errBroken ends a script: what it has found says the rest.
var errBroken = errors.New("an invariant is broken")

func newPlay(rng *rand.Rand, s breaker.Settings, script func(context.Context, *play) error) *play {
	return &play{rng: rng, settings: s, script: script, service: newService(), http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

func (p *play) Services() map[string]http.Handler {
	return map[string]http.Handler{"payments": p.service}
}

func (p *play) Reset(context.Context) error { return nil }

func (p *play) Delayed(context.Context) error { return nil }

// Started sends the settings, and the script on its way.
func (p *play) Started(ctx context.Context, process *crash.Process) error {
	arg, err := json.Marshal(p.settings)
	if err != nil {
		return fmt.Errorf("encode the settings: %w", err)
	}
	if err := process.Send(crash.Call{ID: 1, Arg: arg, Last: true}); err != nil || p.leave != nil {
		return err
	}
	p.addr = process.Addr()
	ctx, p.leave = context.WithCancel(ctx)
	p.actor.Go(func() {
		err := p.script(ctx, p)
		if ctx.Err() != nil {
			return // the run has ended
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.over = true
		if !errors.Is(err, errBroken) {
			p.err = err
		}
	})
	return nil
}

func (p *play) Done(context.Context) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over, p.err
}

func (p *play) Progress() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.steps
}

func (p *play) Check(context.Context, int) ([]crash.Violation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.found, nil
}

func (p *play) Close() {
	if p.leave != nil {
		p.leave()
		p.actor.Wait()
	}
	for _, c := range p.calls {
		c.hangUp()
		<-c.done
	}
}

func (p *play) Tables(context.Context) ([]crash.Table, error) {
	t := crash.Table{Name: "calls", Columns: []string{"call", "reached the service", "which said", "the client was answered"}}
	p.mu.Lock()
	calls := p.calls[:len(p.calls):len(p.calls)]
	p.mu.Unlock()
	const most = 24
	for _, c := range calls[max(0, len(calls)-most):] {
		var said []string
		requests := p.service.of(c.ID)
		for _, r := range requests {
			switch {
			case r.said > 0:
				said = append(said, fmt.Sprint(r.said))
			case r.gone:
				said = append(said, "nothing, the caller left")
			default:
				said = append(said, "nothing yet")
			}
		}
		answer := "not yet"
		if c.answered() {
			answer = strings.TrimSpace(fmt.Sprint(c.status, " ", stage.Clip(c.word, 40)))
			if c.status == 0 {
				answer = "no"
			}
		}
		t.Rows = append(t.Rows, []string{fmt.Sprint(c.n), fmt.Sprint(len(requests), "×"), strings.Join(said, ", "), answer})
	}
	return []crash.Table{t}, nil
}

// breaks notes that an invariant is broken. Its error ends the script.
func (p *play) breaks(i crash.Invariant, format string, args ...any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found = append(p.found, crash.Violation{Invariant: i.Name, Detail: fmt.Sprintf(format, args...)})
	return errBroken
}

func (p *play) step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps++
}

func (c *call) answered() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// charged says whether the client was told so.
func (c *call) charged() bool { return c.answered() && c.status == http.StatusOK }

// call begins a call.
func (p *play) call(ctx context.Context) *call {
	ctx, hangUp := context.WithCancel(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &call{n: len(p.calls) + 1, began: time.Now(), done: make(chan struct{}), hangUp: hangUp}
	c.Payment = breaker.Payment{ID: stage.UUID(p.rng).String(), Cents: 1000 + p.rng.Int64N(9000)}
	p.calls = append(p.calls, c)
	go func() {
		defer close(c.done)
		c.status, c.word = post(ctx, p.http, p.addr, c.Payment)
		p.step()
	}()
	return c
}

// post posts a payment to the checkout. While nobody listens there it tries again.
// The status is 0 if there is no answer.
func post(ctx context.Context, h *http.Client, addr string, m breaker.Payment) (status int, word string) {
	body, err := json.Marshal(m)
	if err != nil {
		return 0, err.Error()
	}
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/payments", bytes.NewReader(body))
		if err != nil {
			return 0, err.Error()
		}
		answer, err := h.Do(r)
		if errors.Is(err, syscall.ECONNREFUSED) && pause(ctx, 10*time.Millisecond) == nil {
			continue
		}
		if err != nil {
			return 0, err.Error()
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil {
			return 0, err.Error()
		}
		return answer.StatusCode, strings.TrimSpace(string(b))
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// await waits until ready, or until that is late: after limit and a good while more,
// in which the process was well able to answer.
func (p *play) await(ctx context.Context, limit time.Duration, ready func() bool) (ok bool, err error) {
	began := time.Now()
	for answered := 0; ; {
		if ready() {
			return true, nil
		}
		if time.Since(began) > limit+late && answered >= pings {
			return ready(), nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return false, err
		}
		if since := time.Since(began); since > limit && since > 200*time.Millisecond && p.ping(ctx) {
			answered++
			p.step()
			if err := pause(ctx, 30*time.Millisecond); err != nil {
				return false, err
			}
		}
	}
}

// ping says whether the process answers, and soon.
func (p *play) ping(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/ping", nil)
	if err != nil {
		return false
	}
	answer, err := p.http.Do(r)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusNoContent
}

// reached says whether a call has reached the service.
func (p *play) reached(c *call) bool { return len(p.service.of(c.ID)) > 0 }

// settle waits until the calls are answered, and looks whether what was said is true.
// The service must not hold them.
func (p *play) settle(ctx context.Context, calls ...*call) error {
	for _, c := range calls {
		ok, err := p.await(ctx, min(p.settings.Timeout, time.Second), c.answered)
		if err != nil {
			return err
		}
		if !ok {
			what := "never reached the service"
			if r := p.service.of(c.ID); len(r) > 0 {
				what = fmt.Sprintf("reached the service, which hangs, and Timeout is %v", p.settings.Timeout)
				if r[0].said > 0 {
					what = fmt.Sprintf("reached the service, which said %d", r[0].said)
				}
			}
			return p.breaks(answeredInTime, "call %d %s; %.1f seconds after it was made its client still waits", c.n, what, time.Since(c.began).Seconds())
		}
		requests := p.service.of(c.ID)
		if len(requests) > 1 {
			return p.breaks(chargedOnce, "call %d reached the service %d times: it was made again inside of the breaker", c.n, len(requests))
		}
		confirmed := len(requests) == 1 && requests[0].said == http.StatusCreated
		switch {
		case c.charged() && !confirmed:
			return p.breaks(trueAnswer, "call %d was answered as charged, and the service has not said so", c.n)
		case !c.charged() && confirmed && p.settings.Timeout >= time.Second && c.status != 0:
			return p.breaks(trueAnswer, "the service has charged for call %d and said so, and the client was answered: %s", c.n, stage.Clip(c.word, 80))
		}
	}
	return nil
}

// one makes a call and waits for its answer.
func (p *play) one(ctx context.Context) (*call, error) {
	c := p.call(ctx)
	return c, p.settle(ctx, c)
}

// through makes n calls, one after the other, each of which has to reach the service.
func (p *play) through(ctx context.Context, n int, as mode, i crash.Invariant, why string) error {
	p.service.turn(as)
	for range n {
		c, err := p.one(ctx)
		if err != nil {
			return err
		}
		if !p.reached(c) {
			return p.breaks(i, "call %d did not reach the service: %s", c.n, why)
		}
	}
	return nil
}

// open makes the circuit open by calls that fail, one after the other, and returns the
// moment before which it cannot have opened.
func (p *play) open(ctx context.Context, as mode) (time.Time, error) {
	p.service.turn(as)
	for range p.settings.Volume {
		if _, err := p.one(ctx); err != nil {
			return time.Time{}, err
		}
	}
	all := p.service.all()
	if len(all) == 0 {
		return time.Now(), nil
	}
	if last := all[len(all)-1]; last.said > 0 {
		return last.saidAt, nil
	}
	return all[len(all)-1].at, nil
}

// shut makes calls at once while the circuit is open, none of which may reach the
// service before until.
func (p *play) shut(ctx context.Context, n int, until time.Time, why string) error {
	var calls []*call
	for range n {
		calls = append(calls, p.call(ctx))
	}
	if err := p.settle(ctx, calls...); err != nil {
		return err
	}
	for _, c := range calls {
		if r := p.service.of(c.ID); len(r) > 0 && r[0].at.Before(until) {
			return p.breaks(openMeansNoCalls, "call %d reached the service: %s", c.n, why)
		}
	}
	return nil
}
