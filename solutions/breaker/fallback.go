package breaker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/exercises/breaker"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
)

// soon is Timeout where a call is not meant to succeed, or may be made again.
const soon = 300 * time.Millisecond

func fallbackSpec() *crash.Spec {
	return &crash.Spec{
		ID:         "breaker/fallback",
		Schema:     schema,
		Grants:     grants,
		Services:   []string{"payments"},
		Invariants: []crash.Invariant{noLostPayment, chargedOnce, answeredInTime, openMeansNoCalls, finalAnswer, trueAnswer},
		Faults:     []crash.Fault{crash.Kill, crash.Cut, crash.Blackhole, crash.FailStatement, crash.Shutdown},
		Variants: []crash.Variant{
			{Name: "hanging", Says: "the service takes the money and does not answer"},
			{Name: "down", Says: "the service is down for a while"},
			{Name: "flapping", Says: "the service is down, hangs and works by turns"},
			{Name: "hang-ups", Says: "clients hang up while the service is at work"},
			{Name: "twice", Says: "clients post the same payment twice"},
		},
		Scenario: func(a *crash.Arena, rng *rand.Rand, variant string) (crash.Scenario, error) {
			return newPaying(a, rng, variant), nil
		},
	}
}

// paying is the scenario of breaker/fallback: clients post payments, and when all are
// answered the judge waits until each is where it belongs.
type paying struct {
	*play
	arena *crash.Arena

	pm       sync.Mutex // guards what follows, which the script writes
	payments []*payment
	rows     map[string]row
	moved    time.Time // when anything last changed
	mark     string
}

// payment is one that a client posts.
type payment struct {
	breaker.Payment
	n        int
	givesUp  bool // its client does not post it again
	declined bool // the service declines it
	answer   breaker.Status
	left     bool // its client has given up
	plan     []mode
	asked    int // by the service's plan
}

type row struct {
	status breaker.Status
	cents  int64
}

func newPaying(a *crash.Arena, rng *rand.Rand, variant string) *paying {
	s := settings(rng)
	s.Timeout, s.Volume, s.Reset, s.Retry = soon, 5, 400*time.Millisecond, 150*time.Millisecond
	y := &paying{arena: a}
	script := y.oneByOne
	switch variant {
	case "":
		y.add(rng, 3)
		y.payments[0].givesUp = true
		y.payments[1].plan = []mode{down}
		y.payments[2].plan, y.payments[2].declined = []mode{declines, declines, declines, declines, declines, declines, declines, declines, declines}, true
	case "hanging":
		y.add(rng, 4)
		for _, m := range y.payments {
			m.plan = []mode{hangs}
		}
		script = y.inTime
	case "flapping":
		y.add(rng, 6)
		for i, m := range y.payments {
			m.plan = [][]mode{{down, hangs}, {hangs, down}, {well}, {hangs, hangs}, {down, down, down}, {well}}[i]
		}
		script = y.inTime
	case "down":
		s.Timeout, s.Reset = amply, 1500*time.Millisecond
		y.add(rng, 1+s.Volume+3)
		script = y.whileDown
	case "hang-ups":
		y.add(rng, 3)
		for _, m := range y.payments {
			m.plan = []mode{hangs}
		}
		s.Timeout = time.Second
		script = y.hangUp
	case "twice":
		y.add(rng, 3)
		y.payments[1].plan = []mode{hangs}
		script = y.twice
	}
	y.play = newPlay(rng, s, func(ctx context.Context, _ *play) error { return script(ctx) })
	y.service.plan = y.planned
	return y
}

func (y *paying) add(rng *rand.Rand, n int) {
	for range n {
		y.payments = append(y.payments, &payment{n: len(y.payments) + 1,
			Payment: breaker.Payment{ID: stage.UUID(rng).String(), Cents: 1000 + rng.Int64N(9000)}})
	}
}

// planned is how the service answers a request: by the payment's plan, then by the
// dial. The service's mu is held.
func (y *paying) planned(_ int, id string) mode {
	for _, m := range y.payments {
		if m.ID == id {
			if m.asked++; m.asked <= len(m.plan) {
				return m.plan[m.asked-1]
			}
		}
	}
	return y.service.dial
}

func (y *paying) Reset(ctx context.Context) error {
	if _, err := y.arena.DB.Exec(ctx, "DELETE FROM public.payments"); err != nil {
		return fmt.Errorf("empty the table: %w", err)
	}
	return nil
}

func (y *paying) Started(ctx context.Context, p *crash.Process) error {
	y.pm.Lock()
	y.moved = time.Now()
	y.pm.Unlock()
	return y.play.Started(ctx, p)
}

// post posts a payment, and again until there is an answer or its client gives up.
func (y *paying) post(ctx context.Context, m *payment) error {
	for ctx.Err() == nil {
		status, word := post(ctx, y.http, y.addr, m.Payment)
		answer := breaker.Status(word)
		if status == http.StatusOK && (answer == breaker.Charged || answer == breaker.Queued || answer == breaker.Declined) {
			return y.answered(ctx, m, answer)
		}
		if m.givesUp {
			y.pm.Lock()
			m.left = true
			y.pm.Unlock()
			return nil
		}
		_ = pause(ctx, 20*time.Millisecond) // the loop looks at ctx
	}
	return ctx.Err()
}

// answered looks whether what a client was told is true.
func (y *paying) answered(ctx context.Context, m *payment, answer breaker.Status) error {
	y.step()
	charges, requests := y.service.charges(m.ID), y.service.of(m.ID)
	if err := y.look(ctx); err != nil {
		return err
	}
	y.pm.Lock()
	m.answer = answer
	_, stored := y.rows[m.ID]
	y.pm.Unlock()
	switch {
	case !stored:
		return y.breaks(noLostPayment, "payment %d was answered %q, and has no row in payments", m.n, answer)
	case answer == breaker.Charged && charges == 0:
		return y.breaks(trueAnswer, "payment %d was answered as charged, and the service has not charged it", m.n)
	case answer == breaker.Declined && (!m.declined || len(requests) == 0):
		return y.breaks(trueAnswer, "payment %d was answered as declined, and the service has not said so", m.n)
	}
	return nil
}

// look reads the table.
func (y *paying) look(ctx context.Context) error {
	rows, err := y.arena.DB.Query(ctx, "SELECT id, status, cents FROM public.payments")
	if err != nil {
		return fmt.Errorf("read the payments: %w", err)
	}
	found := map[string]row{}
	var id, status string
	var cents int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &status, &cents}, func() error {
		found[id] = row{breaker.Status(status), cents}
		return nil
	}); err != nil {
		return fmt.Errorf("read the payments: %w", err)
	}
	mark := fmt.Sprint(found, len(y.service.all()))
	y.pm.Lock()
	defer y.pm.Unlock()
	if y.rows = found; mark != y.mark {
		y.mark, y.moved = mark, time.Now()
	}
	return nil
}

// often is how many requests for a declined payment no single fault explains.
const often = 5

// final says whether a payment is where it belongs. What cannot be put right any more
// is broken.
func (y *paying) final(m *payment, charges int) (bool, error) {
	y.pm.Lock()
	r, stored := y.rows[m.ID]
	y.pm.Unlock()
	switch {
	case charges > 1:
		return false, y.breaks(chargedOnce, "payment %d was charged %d times, with the keys %s", m.n, charges, y.keysOf(m))
	case charges > 0 && !stored:
		return false, y.breaks(noLostPayment, "payment %d was charged, and has no row in payments: the shop knows nothing of it", m.n)
	case !stored: // it was never accepted
		return m.left, nil
	case r.cents != m.Cents:
		return false, y.breaks(noLostPayment, "payment %d is of %d cents, and its row says %d", m.n, m.Cents, r.cents)
	case r.status == breaker.Charged && y.service.charges(m.ID) == 0:
		return false, y.breaks(noLostPayment, "the row of payment %d says charged, and the service has not charged it", m.n)
	case r.status == breaker.Declined && !m.declined:
		return false, y.breaks(noLostPayment, "the row of payment %d says declined, and the service has said no such thing; it has charged it %s", m.n, stage.Count(charges, "time"))
	case m.declined && r.status != breaker.Declined && len(y.service.of(m.ID)) > often:
		return false, y.breaks(finalAnswer, "the service has declined payment %d, and was asked %d times", m.n, len(y.service.of(m.ID)))
	}
	return r.status != breaker.Queued, nil
}

func (y *paying) keysOf(m *payment) string {
	var keys []string
	for _, r := range y.service.of(m.ID) {
		keys = append(keys, "“"+stage.Clip(r.key, 12)+"”")
	}
	return strings.Join(keys, ", ")
}

// rest waits until each payment is where it belongs.
func (y *paying) rest(ctx context.Context) error {
	s := y.settings
	patience := s.Reset + s.Retry + 3*min(s.Timeout, time.Second) + time.Second
	var waits *payment
	for {
		var err error
		ok, werr := y.await(ctx, 0, func() bool {
			charges := map[*payment]int{} // before the rows: what is charged has a row
			for _, m := range y.payments {
				charges[m] = y.service.charges(m.ID)
			}
			if err = y.look(ctx); err != nil {
				return true
			}
			waits = nil
			for _, m := range y.payments {
				done, broken := y.final(m, charges[m])
				if broken != nil {
					err = broken
					return true
				}
				if !done && waits == nil {
					waits = m
				}
			}
			return waits == nil
		})
		if werr != nil {
			return werr
		}
		if err != nil || ok {
			return err
		}
		y.pm.Lock()
		still := time.Since(y.moved)
		y.pm.Unlock()
		if still > patience+late {
			return y.breaks(noLostPayment, "payment %d is still %s, and for %.1f seconds nobody has tried; the service works", waits.n, y.is(waits), still.Seconds())
		}
	}
}

func (y *paying) is(m *payment) string {
	y.pm.Lock()
	defer y.pm.Unlock()
	if r, ok := y.rows[m.ID]; ok {
		return string(r.status)
	}
	return "nowhere"
}

func (y *paying) oneByOne(ctx context.Context) error {
	for _, m := range y.payments {
		if err := y.post(ctx, m); err != nil {
			return err
		}
	}
	return y.rest(ctx)
}

// all posts payments at once, each of which has to be answered in time.
func (y *paying) all(ctx context.Context, payments ...*payment) error {
	type posted struct {
		done chan struct{}
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	var list []*posted
	for _, m := range payments {
		p := &posted{done: make(chan struct{})}
		list = append(list, p)
		clients.Go(func() {
			defer close(p.done)
			p.err = y.post(ctx, m)
		})
	}
	for i, p := range list {
		ok, err := y.await(ctx, min(y.settings.Timeout, time.Second), func() bool {
			select {
			case <-p.done:
				return true
			default:
				return false
			}
		})
		if err != nil {
			return err
		}
		if !ok {
			return y.breaks(answeredInTime, "payment %d was posted, Timeout is %v, and more than %v later its client is not answered", payments[i].n, y.settings.Timeout, late)
		}
		if p.err != nil {
			return p.err
		}
	}
	return nil
}

func (y *paying) inTime(ctx context.Context) error {
	if err := y.all(ctx, y.payments...); err != nil {
		return err
	}
	return y.rest(ctx)
}

// whileDown has the circuit open, and looks which calls are made while it is.
func (y *paying) whileDown(ctx context.Context) error {
	first, volume := y.payments[0], y.settings.Volume
	if err := y.all(ctx, first); err != nil {
		return err
	}
	if first.answer != breaker.Charged {
		return y.breaks(answeredInTime, "the service works, and payment 1 was answered %q", first.answer)
	}
	y.service.turn(down)
	for _, m := range y.payments[1 : 1+volume] {
		if err := y.all(ctx, m); err != nil {
			return err
		}
	}
	certain := time.Now() // by now it is open
	var failed []request
	worked := 0
	for _, r := range y.service.all() {
		switch r.said {
		case http.StatusServiceUnavailable:
			failed = append(failed, r)
		case http.StatusCreated: // more than one if several attempts were made for payment 1
			worked++
		}
	}
	least := fewest(volume, worked)
	if len(failed) < least {
		return y.breaks(answeredInTime, "%d payments were answered as queued, and the service was asked %s: it is not known to be down", volume, stage.Count(len(failed), "time"))
	}
	until := failed[least-1].saidAt.Add(y.settings.Reset)
	more := y.payments[1+volume:]
	if err := y.all(ctx, more...); err != nil {
		return err
	}
	if err := pause(ctx, time.Until(until)); err != nil {
		return err
	}
	for _, m := range y.payments[1:] {
		n := 0
		for _, r := range y.service.of(m.ID) {
			if r.at.After(certain) && r.at.Before(until) {
				n++
			}
		}
		isNew := m.n > 1+volume
		if isNew && n > 0 || n > 2 { // of an older one an attempt may have been under way
			return y.breaks(openMeansNoCalls, "%d of %d calls had failed, Reset was not over, and the service was asked %s to charge payment %d", len(failed), len(failed)+worked, stage.Count(n, "time"), m.n)
		}
	}
	y.service.turn(well)
	return y.rest(ctx)
}

// fewest is with how many failures the circuit may open, if up to so many calls have
// succeeded and FailureRate is 50.
func fewest(volume, worked int) int {
	least := volume
	for n := range worked + 1 {
		least = min(least, max(volume-n, n))
	}
	return least
}

// hangUp has clients leave while the service is at work on their payments.
func (y *paying) hangUp(ctx context.Context) error {
	client, leave := context.WithCancel(ctx)
	defer leave()
	var clients sync.WaitGroup
	for _, m := range y.payments {
		clients.Go(func() { _, _ = post(client, y.http, y.addr, m.Payment) }) // it leaves
	}
	reached := func() (n int) {
		for _, m := range y.payments {
			n += min(1, len(y.service.of(m.ID)))
		}
		return n
	}
	ok, err := y.await(ctx, time.Second, func() bool { return reached() == len(y.payments) })
	if err != nil {
		return err
	}
	if !ok {
		return y.breaks(noLostPayment, "%d payments were posted, the service works, and it was asked to charge %d", len(y.payments), reached())
	}
	leave()
	clients.Wait()
	y.pm.Lock()
	for _, m := range y.payments {
		m.left = true
	}
	y.pm.Unlock()
	return y.rest(ctx)
}

// twice posts each payment twice at the same moment, and once more when all is done.
func (y *paying) twice(ctx context.Context) error {
	if err := y.all(ctx, append(y.payments, y.payments...)...); err != nil {
		return err
	}
	if err := y.rest(ctx); err != nil {
		return err
	}
	if err := y.all(ctx, y.payments...); err != nil {
		return err
	}
	return y.rest(ctx)
}

func (y *paying) Progress() int {
	n := y.play.Progress() + min(100, len(y.service.all()))
	y.pm.Lock()
	defer y.pm.Unlock()
	for _, r := range y.rows {
		if r.status != breaker.Queued {
			n++
		}
	}
	return n
}

func (y *paying) State(ctx context.Context) (string, error) {
	if err := y.look(ctx); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, m := range y.payments {
		charges, asked := y.service.charges(m.ID), len(y.service.of(m.ID)) > 0
		y.pm.Lock()
		fmt.Fprintf(&b, "%s %s %v %d %v, ", y.rows[m.ID].status, m.answer, m.left, charges, asked)
		y.pm.Unlock()
	}
	return b.String(), nil
}

// Check adds what only the end of a run without faults shows.
func (y *paying) Check(ctx context.Context, faults int) ([]crash.Violation, error) {
	found, err := y.play.Check(ctx, faults)
	if err != nil || len(found) > 0 || faults > 0 {
		return found, err
	}
	for _, m := range y.payments {
		if n := len(y.service.of(m.ID)); m.declined && n > 1 {
			found = append(found, crash.Violation{Invariant: finalAnswer.Name, Detail: fmt.Sprintf("the service has declined payment %d, and was asked %d times", m.n, n)})
		}
	}
	return found, nil
}

func (y *paying) Tables(ctx context.Context) ([]crash.Table, error) {
	if err := y.look(ctx); err != nil {
		return nil, err
	}
	table := crash.Table{Name: "payments", Columns: []string{"payment", "row says", "the client was answered", "the service was asked", "and charged"}}
	for i, m := range y.payments {
		charges, asked, status := y.service.charges(m.ID), len(y.service.of(m.ID)), y.is(m)
		y.pm.Lock()
		answer := string(m.answer)
		if m.left {
			answer = "it has left"
		}
		y.pm.Unlock()
		if status == "nowhere" {
			status = "no row"
		}
		table.Rows = append(table.Rows, []string{fmt.Sprint(m.n), status, answer, fmt.Sprint(asked, "×"), fmt.Sprint(charges, "×")})
		if charges > 1 || charges > 0 && status == "no row" || status == string(breaker.Charged) && charges == 0 {
			table.Marks = append(table.Marks, i)
		}
	}
	return []crash.Table{table}, nil
}
