package lab

import (
	"context"
	"errors"
	"fmt"
	"html"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
	"crashcourse/pkg/step"
	"crashcourse/pkg/view"
	"crashcourse/pkg/wire"
)

// Work is a function that can be run as a process of its own. Both connections
// are the process's own. ctx ends when the run does.
type Work func(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error

// Bounds of a run.
const (
	quietAfter = 300 * time.Millisecond  // nothing that lasts has passed for so long, and the process asks the same again and again: it has done what there is to do
	muteAfter  = 1500 * time.Millisecond // the same of a process that says nothing at all
	stillFor   = 60 * time.Millisecond   // nothing has passed for so long: all that the process had sent is through
	longest    = 20 * time.Second
	stopTime   = 2 * time.Second // from being asked to stop to the end
)

// Run runs work in a process of its own, lets the faults strike, each at most
// once and in any order, and draws the conversation that the process had with
// its servers. It ends when the process has ended, or when nothing that lasts
// has been said for a moment: then the process is asked to stop.
func (l *Lab) Run(work Work, faults ...Fault) wire.Trace {
	return l.Together([]Work{work}, faults...)
}

// Together runs several functions at the same time, each in a process of its
// own, as [Run] does. Each fault strikes the first process that sends, or is
// about to receive, such a message.
func (l *Lab) Together(works []Work, faults ...Fault) wire.Trace {
	r := l.perform(works, faults)
	if r == nil {
		return wire.Trace{}
	}
	r.show()
	return r.trace
}

// Try runs work as [Lab.Run] does and draws nothing: for cells that run a lot and
// count what came of it.
func (l *Lab) Try(work Work, faults ...Fault) wire.Trace {
	r := l.perform([]Work{work}, faults)
	if r == nil {
		return wire.Trace{}
	}
	for _, n := range r.missed() {
		l.out.say("%s", n)
	}
	return r.trace
}

// perform makes a run. It returns nil in a process that is not the cell's own.
func (l *Lab) perform(works []Work, faults []Fault) *run {
	l.calls++
	if l.role != nil {
		if l.role.call == l.calls && l.role.work < len(works) {
			l.role.run(works[l.role.work])
		}
		return nil
	}
	r := &run{lab: l, works: works, faults: slices.Clone(faults), events: make(chan func(), 64)}
	if err := r.do(l.ctx); err != nil {
		l.fail(err)
	}
	return r
}

// run is one run.
type run struct {
	lab    *Lab
	works  []Work
	named  string // the title; empty: made of the functions' names
	faults []Fault
	proxy  *wire.Proxy
	procs  []*process
	events chan func() // what happened, to be dealt with by the run's goroutine
	trace  wire.Trace
	calm   bool // it ended because nothing more happened

	observer *step.Observer
	scenes   []view.Scene
	hands    stage.Hands // which deliveries the processes have in hand

	mu       sync.Mutex
	struck   map[int]int       // by place in faults: the process
	seen     map[int]int       // messages that a fault could have struck
	lookout  *lookout          // knows idle looks
	idle     map[int]int       // by process: idle looks since the last message that lasts
	lastStep map[int]time.Time // by process
	lastAny  time.Time         // the last message of all
	lastWork time.Time         // the last one that lasts
	release  chan wire.Action  // closed to let a held message go
	held     int               // the process whose message is held
}

func (r *run) do(ctx context.Context) error {
	if r.lab.at.card == nil {
		return r.lab.at.notFresh()
	}
	r.struck, r.seen, r.idle, r.lastStep = map[int]int{}, map[int]int{}, map[int]int{}, map[int]time.Time{}
	r.lookout, r.lastWork = newLookout(), time.Now()
	card := r.lab.at.card
	pg, mq, err := step.Hosts(card.Postgres, card.AMQP)
	if err != nil {
		return err
	}
	if r.observer, err = step.NewObserver(card.Postgres, card.AMQP, r.lab.at.servers.Management); err != nil {
		return err
	}
	defer r.observer.Close()
	if err := r.observer.ListQueues(ctx); err != nil {
		return err
	}
	r.glance(ctx)
	r.proxy, err = wire.New(wire.Config{Postgres: pg, AMQP: mq, Services: r.lab.services, Decide: r.decide})
	if err != nil {
		return err
	}
	defer r.proxy.Close()
	defer func() {
		for _, p := range r.procs {
			p.Kill()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	for i := range r.works {
		p, err := r.start(i)
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.procs = append(r.procs, p)
		r.mu.Unlock()
	}
	if err := r.watch(ctx); err != nil {
		return err
	}
	r.trace = tidy(r.proxy.Trace(), r.calm)
	if err := r.stop(ctx); err != nil {
		return err
	}
	r.glance(ctx)
	return nil
}

// glance adds a look at the tables and queues to the recording. One that fails
// costs a scene, and not the run.
func (r *run) glance(ctx context.Context) {
	things, err := r.observer.Look(ctx)
	if err != nil {
		return
	}
	after := 0
	if r.proxy != nil {
		after = r.proxy.Recorded()
	}
	if n := len(r.scenes); n > 0 && reflect.DeepEqual(r.scenes[n-1].Things, things) {
		return
	}
	r.scenes = append(r.scenes, view.Scene{After: after, Things: things})
}

// decide is called under the wires' ordering lock.
func (r *run) decide(m *wire.Message) wire.Action {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastAny = time.Now()
	if m.Step {
		r.lastStep[m.Process] = r.lastAny
	}
	if r.lookout.see(0, m) != nil {
		r.idle[m.Process]++
	}
	if lasts(m) {
		r.worked()
	}
	for i, f := range r.faults {
		if _, over := r.struck[i]; over || !f.meets(m) {
			continue
		}
		r.seen[i]++
		if r.seen[i] != f.nth {
			continue
		}
		r.struck[i] = m.Process
		m.Fault = string(f.kind)
		r.worked()
		switch f.kind {
		case crash.Kill:
			go r.kill(m.Process)
			return wire.Action{Kind: wire.Hold} // until the lane freezes
		case crash.Delay:
			r.release, r.held = make(chan wire.Action), m.Process
		}
		return f.action(r.release)
	}
	if m.Dir == wire.ToClient && (m.Effect == wire.Done || lasts(m)) {
		// What it tells of can be seen from outside now: look, then let it pass.
		seen := make(chan wire.Action, 1)
		r.events <- func() {
			r.glance(r.lab.ctx)
			seen <- wire.Action{}
		}
		return wire.Action{Kind: wire.Hold, Until: seen}
	}
	return wire.Action{}
}

// kill freezes a process and has it killed, while the message that it is to be
// killed before is held back. Its two connections take different ways: what it
// had sent on the other one before this message gets through first.
func (r *run) kill(process int) {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		r.mu.Lock()
		still := time.Since(r.lastAny) > stillFor
		r.mu.Unlock()
		if still {
			break
		}
	}
	r.events <- func() { r.bury(process) }
}

// worked notes that something has happened. The caller holds mu.
func (r *run) worked() {
	r.lastWork = time.Now()
	clear(r.idle)
}

// calmed says whether the processes have done what there is to do, but for one.
// The caller holds mu.
func (r *run) calmed(except int) bool {
	now := time.Now()
	if now.Sub(r.lastWork) < quietAfter {
		return false
	}
	for _, p := range r.procs {
		n := p.lane.Process()
		if p.over || n == except || r.idle[n] > 0 {
			continue
		}
		wait := muteAfter
		if r.hands.Free(n) {
			wait = quietAfter // a consumer that has nothing in hand waits for more
		}
		if last, spoke := r.lastStep[n]; !spoke || now.Sub(last) < wait {
			return false
		}
	}
	return true
}

// calling says whether a service is at work on a request of a living process.
func (r *run) calling() bool {
	return slices.ContainsFunc(r.procs, func(p *process) bool { return !p.over && p.lane.Unanswered() > 0 })
}

// watch waits for the end of the work.
func (r *run) watch(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if !slices.ContainsFunc(r.procs, func(p *process) bool { return !p.over }) {
			return nil
		}
		select {
		case <-ctx.Done():
			if r.lab.ctx.Err() != nil {
				return ctx.Err()
			}
			return nil // it never calmed down: show what there is
		case f := <-r.events:
			f()
		case <-tick.C:
			r.hands.Look(r.proxy.Since) // before mu, which decide takes under the proxy's lock
			calling := r.calling()      // before mu: the wires' lock comes first
			r.mu.Lock()
			switch {
			case calling:
			case r.release != nil:
				if r.calmed(r.held) {
					close(r.release)
					r.release = nil
					r.worked()
				}
			case r.calmed(0):
				r.calm = true
			}
			r.mu.Unlock()
			if r.calm {
				return nil
			}
		}
	}
}

// bury deals with a process that a fault has killed.
func (r *run) bury(n int) {
	p := r.procs[n-1]
	if p.over {
		return
	}
	p.lane.Freeze()
	p.Kill()
	p.end = "was killed"
	r.close(p)
}

// close lets the servers notice that a process has ended.
func (r *run) close(p *process) {
	p.over = true
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.lane.Close(ctx); err != nil {
		p.remark = "\n(" + err.Error() + ")"
	}
	r.glance(ctx)
	p.to = r.proxy.Recorded()
}

// stop ends the processes that still run: one that is cut off by a blackhole
// like a crash would, the others by asking them.
func (r *run) stop(ctx context.Context) error {
	for _, p := range r.procs {
		if p.over {
			continue
		}
		if r.hit(p, crash.Blackhole) {
			p.Kill()
			p.end = "was cut off, and was killed in the end"
			r.close(p)
			continue
		}
		p.Ask()
		p.asked, p.end = true, "had nothing more to do, and was stopped"
	}
	deadline := time.After(stopTime)
	for slices.ContainsFunc(r.procs, func(p *process) bool { return !p.over }) {
		select {
		case f := <-r.events:
			f()
		case <-deadline:
			for _, p := range r.procs {
				if !p.over {
					p.Kill()
					p.end = "did not stop within two seconds of its context's end, and was killed"
					r.close(p)
				}
			}
		case <-ctx.Done():
			if r.lab.ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

// hit says whether a fault of a kind has struck the process.
func (r *run) hit(p *process, kind crash.Fault) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range r.struck {
		if n == p.lane.Process() && r.faults[i].kind == kind {
			return true
		}
	}
	return false
}

// show draws the run.
func (r *run) show() {
	notes := r.missed()
	for i, p := range r.procs {
		who := "The process"
		if len(r.procs) > 1 {
			who = fmt.Sprintf("Process %d", i+1)
		}
		notes = append(notes, who+" "+p.end+".")
	}
	rich, picture, err := drawn(r.recording())
	if err != nil {
		r.lab.fail(err)
	}
	var b, text strings.Builder
	text.WriteString(picture)
	for _, n := range notes {
		b.WriteString("<p>" + html.EscapeString(n) + "</p>")
		text.WriteString(n + "\n")
	}
	for i, p := range r.procs {
		if said := strings.TrimSpace(p.Output() + p.remark); said != "" {
			head := fmt.Sprintf("Process %d printed:", i+1)
			b.WriteString("<p>" + head + "</p><pre>" + html.EscapeString(said) + "</pre>")
			text.WriteString(head + "\n" + said + "\n")
		}
	}
	r.lab.out.show(rich+framed(b.String()), text.String())
}

// missed says which faults never struck.
func (r *run) missed() (notes []string) {
	for i, f := range r.faults {
		if _, ok := r.struck[i]; !ok {
			why := "The names are those in the diagram."
			switch f.kind {
			case crash.Nack:
				why = "Only a publish on a channel in confirm mode can be refused."
			case crash.FailStatement:
				why += " Only statements, and what services are asked and answer, can fail."
			}
			notes = append(notes, fmt.Sprintf("The fault never struck: no message number %d was named %s. %s", f.nth, f.before, why))
		}
	}
	return notes
}

// recording is the run with all that was seen on the way.
func (r *run) recording() view.Recording {
	rec := view.Recording{Version: view.RecordingVersion, Title: r.title(), Trace: r.trace, Scenes: r.scenes}
	for i, p := range r.procs {
		rec.Lives = append(rec.Lives, view.Life{Process: p.lane.Process(), Slot: i, Work: nameOf(r.works[i]), To: p.to, End: p.end})
	}
	return rec
}

// title says what has been run, and with which faults.
func (r *run) title() string {
	s := r.named
	if s == "" {
		s = r.names()
	}
	if len(r.faults) == 0 {
		return s + ", without a fault"
	}
	var faults []string
	for _, f := range r.faults {
		faults = append(faults, f.String())
	}
	return s + ", with " + strings.Join(faults, " and ")
}

// names are those of the functions.
func (r *run) names() string {
	var names []string
	for i, w := range r.works {
		n := nameOf(w)
		if i > 0 && n == nameOf(r.works[i-1]) {
			n = "another " + n
		}
		names = append(names, n)
	}
	return strings.Join(names, " and ")
}

// nameOf returns the name of a function, as its declaration has it.
func nameOf(f any) string {
	fn := runtime.FuncForPC(reflect.ValueOf(f).Pointer())
	if fn == nil {
		return "a function"
	}
	_, name, _ := strings.Cut(fn.Name()[strings.LastIndex(fn.Name(), "/")+1:], ".")
	if strings.Contains(name, ".") {
		return "a function" // a closure or a method
	}
	return name
}

// self is the path of the running binary.
func self() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", errors.Join(errors.New("lab: find the cell's own binary"), err)
	}
	return path, nil
}
