package step

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/view"
	"crashcourse/pkg/wire"
)

// Config says what a [Session] runs.
type Config struct {
	Title string `json:"title"`
	Works []Work `json:"works"` // each is a process of its own
	// Prepare makes the starting state. It runs before the works start, past the
	// proxy, and again before each rewind. One without a path does nothing.
	Prepare Work `json:"prepare"`
	// Postgres and AMQP are the addresses that the works connect to. They carry
	// credentials.
	Postgres string `json:"database_url"`
	AMQP     string `json:"amqp_url"`
	// Services are HTTP services that the works call: "host:port" by name.
	Services map[string]string `json:"services,omitempty"`
	// Management is the address of the broker's management API, which lists the
	// queues to look at; it may be empty.
	Management string `json:"management_url"`
}

// Opened is what a lab server answers to a [Config] that was posted to it.
type Opened struct {
	Path string `json:"path"` // of the session's page, below the server's address
}

// Bounds of a session.
const (
	stillWaiting = 3 * time.Millisecond  // no message has moved for so long, and one waits: time to look
	stillRunning = 40 * time.Millisecond // the same while a process is busy
	lookAgain    = time.Second           // others may change the tables too
	lookTime     = 4 * time.Second
	answerTime   = 5 * time.Second // for what a command brings about
	closeTime    = 5 * time.Second // for the servers to notice that a process has ended
	prepareTime  = 30 * time.Second
	maxTrace     = 20000
)

// State says what a session waits for.
type State string

// The states of a session.
const (
	Waiting State = "waiting" // a message waits to be let pass
	Running State = "running" // processes are busy, and no message waits
	Crashed State = "crashed" // a crashed process can be started again, and nothing else waits
	Ended   State = "ended"   // every process has ended by itself
	Closed  State = "closed"
)

// Session is a run that waits at each message.
type Session struct {
	config   Config
	observer *Observer
	ctx      context.Context
	cancel   context.CancelFunc
	looker   sync.WaitGroup
	commands sync.Mutex // one at a time

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when anything below has changed
	run      *run
	runs     int // made so far
	notes    []string
	closed   string // why it is over
	lastUsed time.Time
}

// run is one run of a session; a rewind makes a new one. The session's mu guards
// what changes.
type run struct {
	proxy    *wire.Proxy
	title    string
	taking   sync.Mutex // one take at a time; taken before the session's mu
	pending  []*held
	trace    wire.Trace
	read     int // the number of the last message taken over from the proxy
	scenes   []view.Scene
	edits    int // of the last scene, which may be replaced
	procs    []*actor
	struck   map[wire.Point]crash.Fault
	script   []move
	moved    time.Time
	stirred  bool // something has happened since the last look
	over     bool
	livesNow int // counts changes of lives
}

// held is a message that waits.
type held struct {
	message wire.Message
	pass    chan wire.Action // has room for one
	decided bool
}

// actor is a process of a run.
type actor struct {
	*Process
	lane   *wire.Lane
	life   view.Life
	ended  bool          // it has, but what it had sent may still be under way
	gone   bool          // and nothing more comes of it
	fate   string        // how we have ended it; empty: not
	buried chan struct{} // closed when the servers have noticed its end
}

// move is what was done in a run, for a rewind to do again.
type move struct {
	point   wire.Point  // of the message that waited; zero: none did
	fault   crash.Fault // that struck; empty lets the message pass
	process int         // that was killed
	restart bool        // slot was started again
	slot    int
}

// Start makes the starting state and starts the works. It returns when their
// first messages wait, or when they have had time to come to that.
func Start(ctx context.Context, config Config) (*Session, error) {
	if len(config.Works) == 0 {
		return nil, errors.New("step: there is no work to run")
	}
	o, err := NewObserver(config.Postgres, config.AMQP, config.Management)
	if err != nil {
		return nil, err
	}
	s := &Session{config: config, observer: o, changed: make(chan struct{}), lastUsed: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.begin(ctx); err != nil {
		s.cancel()
		o.Close()
		return nil, err
	}
	s.looker.Go(s.look)
	waiting, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = s.await(waiting, func(r *run) bool { return len(r.pending) > 0 || r.state() == Ended }) // it may be busy for longer
	return s, nil
}

// begin makes a run.
func (s *Session) begin(ctx context.Context) error {
	if s.config.Prepare.Path != "" {
		if err := s.prepare(ctx); err != nil {
			return err
		}
	}
	if err := s.observer.ListQueues(ctx); err != nil {
		return err
	}
	things, err := s.observer.Look(ctx)
	if err != nil {
		return err
	}
	pg, mq, err := Hosts(s.config.Postgres, s.config.AMQP)
	if err != nil {
		return err
	}
	r := &run{title: s.config.Title, struck: map[wire.Point]crash.Fault{}, moved: time.Now(),
		trace: wire.Trace{Version: wire.TraceVersion}, scenes: []view.Scene{{Things: things}}}
	r.proxy, err = wire.New(wire.Config{Postgres: pg, AMQP: mq, Services: s.config.Services, MaxTrace: maxTrace,
		Decide:  func(m *wire.Message) wire.Action { return s.decide(r, m) },
		Observe: func(m *wire.Message) { s.passed(r, m) },
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.run = r
	s.runs++
	s.mu.Unlock()
	for slot := range s.config.Works {
		if err := s.launch(r, slot); err != nil {
			s.end(r)
			return err
		}
	}
	return nil
}

func (s *Session) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	p, err := s.config.Prepare.Run(s.config.Postgres, s.config.AMQP)
	if err != nil {
		return err
	}
	select {
	case <-p.Ended():
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("step: making the starting state took more than %v", prepareTime)
	}
	if e := p.End(); !e.Well() {
		what := "function"
		if e.Plain {
			what = "command"
		}
		return fmt.Errorf("step: the starting state could not be made: the %s that makes it %s %s", what, e, Shorten(p.Output(), 300))
	}
	return nil
}

// launch starts the process of a slot.
func (s *Session) launch(r *run, slot int) error {
	lane, err := r.proxy.Lane()
	if err != nil {
		return err
	}
	w := s.config.Works[slot]
	p, err := w.RunThrough(lane, s.config.Postgres, s.config.AMQP)
	if err != nil {
		return err
	}
	a := &actor{Process: p, lane: lane, life: view.Life{Process: lane.Process(), Slot: slot, Work: w.Name}, buried: make(chan struct{})}
	s.mu.Lock()
	a.life.From = r.read
	r.procs = append(r.procs, a)
	s.stir(r)
	r.livesNow++
	s.mu.Unlock()
	go s.bury(r, a)
	return nil
}

// bury waits for the end of a process, and lets the servers notice it.
func (s *Session) bury(r *run, a *actor) {
	defer close(a.buried)
	<-a.Ended()
	s.mu.Lock()
	a.ended = true
	s.tell()
	s.mu.Unlock()
	s.drain(r, a)
	s.mu.Lock()
	a.gone = true
	end := cmp.Or(a.fate, a.End().String())
	r.drop(a.lane.Process())
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := a.lane.Close(ctx); err != nil {
		end += " (" + err.Error() + ")"
	}
	if said := strings.TrimSpace(a.Output()); said != "" {
		end += "; it printed: " + Shorten(said, 400)
	}
	s.take(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	a.life.To, a.life.End = r.read, end
	r.drop(a.lane.Process())
	r.livesNow++
	s.stir(r)
}

// drain waits until what a process had sent before its end has passed: its
// kernel would still deliver it.
func (s *Session) drain(r *run, a *actor) {
	process := a.lane.Process()
	ticker := time.NewTicker(stillRunning / 2)
	defer ticker.Stop()
	for {
		s.mu.Lock()
		// Nobody is left to hear the answers.
		for _, h := range r.pending {
			if h.message.Process == process && h.message.Dir == wire.ToClient && !h.decided {
				h.decided = true
				h.pass <- wire.Action{}
			}
		}
		under := slices.ContainsFunc(r.pending, func(h *held) bool { return h.message.Process == process })
		done := a.fate != "" || r.over || !under && time.Since(r.moved) > stillRunning
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// finish ends a process of ours, and returns when it is buried.
func (s *Session) finish(a *actor, fate string) {
	s.mu.Lock()
	if !a.gone {
		a.fate = fate
	}
	s.mu.Unlock()
	a.lane.Freeze()
	a.Kill()
	<-a.buried
}

// await waits until ok, which is called with mu held.
func (s *Session) await(ctx context.Context, ok func(r *run) bool) error {
	for {
		s.mu.Lock()
		done, changed := ok(s.run), s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return errors.New("step: the session is over")
		}
	}
}

// end ends a run.
func (s *Session) end(r *run) {
	s.mu.Lock()
	r.over = true
	procs := slices.Clone(r.procs)
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, a := range procs {
		all.Go(func() { s.finish(a, "was ended with the session") })
	}
	all.Wait()
	_ = r.proxy.Close() // what it says of connections that it had to break is nobody's concern any more
}

// Close ends all processes. What was recorded can still be followed and read.
func (s *Session) Close(why string) {
	s.mu.Lock()
	if s.closed != "" {
		s.mu.Unlock()
		return
	}
	s.closed = cmp.Or(why, "The session is over.")
	s.tell()
	s.mu.Unlock()
	s.cancel()
	s.commands.Lock() // one that is on its way ends first
	defer s.commands.Unlock()
	s.looker.Wait()
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	s.end(r)
	s.observer.Close()
	s.mu.Lock()
	s.tell()
	s.mu.Unlock()
}

// LastUsed is when the last command came, or the session began.
func (s *Session) LastUsed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastUsed
}

// Recording returns what the session has seen so far of its present run.
func (s *Session) Recording() view.Recording {
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	s.take(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.recording()
}

func (r *run) recording() view.Recording {
	rec := view.Recording{Version: view.RecordingVersion, Title: r.title, Trace: r.trace, Scenes: slices.Clone(r.scenes), Lives: r.lives()}
	rec.Trace.Messages = slices.Clone(r.trace.Messages)
	return rec
}

func (r *run) lives() []view.Life {
	var all []view.Life
	for _, a := range r.procs {
		all = append(all, a.life)
	}
	return all
}
