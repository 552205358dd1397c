package step

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/wire"
)

// Command is what somebody who steps can ask for.
type Command struct {
	Act     Act    `json:"act"`
	ID      string `json:"id,omitempty"`      // of the message meant; empty: the one that has waited longest
	Process int    `json:"process,omitempty"` // Crash, Restart: the one meant; 0: the one that the message is of, or the only one
	Seq     int    `json:"seq,omitempty"`     // Rewind: the last message to pass again; 0 goes to the start
}

// Act is what a [Command] does.
type Act string

// The acts.
const (
	Pass      Act = "step"      // let the message pass
	ToEffect  Act = "effect"    // let messages pass until one waits that changes something, or tells of it
	Crash     Act = "crash"     // kill the process
	Cut       Act = "cut"       // break the message's connection; the process lives
	Blackhole Act = "blackhole" // swallow this message and all that follow it there
	Nack      Act = "nack"      // the broker refuses the message
	Fail      Act = "fail"      // the statement fails, as a serialization conflict does
	Restart   Act = "restart"   // start a process that has ended again
	Rewind    Act = "rewind"    // make the whole run anew, up to a message
	Stop      Act = "stop"      // end the session
)

var kinds = map[Act]wire.ActionKind{Cut: wire.Cut, Blackhole: wire.Blackhole, Nack: wire.Nack, Fail: wire.Fail}

var asFault = map[Act]crash.Fault{Cut: crash.Cut, Blackhole: crash.Blackhole, Nack: crash.Nack, Fail: crash.FailStatement}

// maxIdle is how many messages that change nothing ToEffect lets pass.
const maxIdle = 80

// Do carries out a command. It returns when what it does has begun to show: the
// message has passed, the process is dead and the servers have noticed. An
// error is one sentence for whoever asked; the session goes on.
func (s *Session) Do(ctx context.Context, c Command) error {
	if c.Act == Stop {
		s.Close("You have ended this session. Run the cell again for a new one.")
		return nil
	}
	s.commands.Lock()
	defer s.commands.Unlock()
	s.mu.Lock()
	closed, r := s.closed, s.run
	s.lastUsed = time.Now()
	s.mu.Unlock()
	if closed != "" {
		return errors.New(closed)
	}
	switch c.Act {
	case Pass:
		return s.pass(ctx, r, c.ID)
	case ToEffect:
		return s.toEffect(ctx, r, c.ID)
	case Crash:
		return s.crash(r, c)
	case Cut, Blackhole, Nack, Fail:
		return s.strike(ctx, r, c)
	case Restart:
		return s.restart(r, c.Process)
	case Rewind:
		return s.rewind(ctx, r, c.Seq)
	}
	return fmt.Errorf("there is no act %q", c.Act)
}

// ErrBusy is what a command comes to that needs a message that waits, while none
// does because the processes are busy.
var ErrBusy = errors.New("nothing waits: the process is busy")

// find returns the message meant by id. The caller holds mu.
func (r *run) find(id string) (*held, error) {
	for _, h := range r.pending {
		if !h.decided && (id == "" || h.message.Point.String() == id) {
			return h, nil
		}
	}
	switch {
	case id != "" && r.state() == Waiting:
		return nil, fmt.Errorf("message %s does not wait any more", id)
	case r.state() == Crashed:
		return nil, errors.New("nothing waits: the process was crashed; restart it")
	case r.state() == Ended:
		return nil, errors.New("nothing waits: every process has ended")
	}
	return nil, ErrBusy
}

// decideOn gives a waiting message what it waits for, and waits until that has
// happened.
func (s *Session) decideOn(ctx context.Context, r *run, h *held, fault crash.Fault, kind wire.ActionKind) error {
	s.mu.Lock()
	h.decided = true
	at := h.message.Point
	if fault != "" {
		r.struck[at] = fault
	}
	r.script = append(r.script, move{point: at, fault: fault})
	h.pass <- wire.Action{Kind: kind}
	s.tell()
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := s.await(ctx, func(r *run) bool { return !slices.Contains(r.pending, h) }); err != nil {
		return fmt.Errorf("%s did not get through within %v", h.message.Name, answerTime)
	}
	return nil
}

func (s *Session) pass(ctx context.Context, r *run, id string) error {
	s.mu.Lock()
	h, err := r.find(id)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.decideOn(ctx, r, h, "", wire.Pass)
}

func (s *Session) toEffect(ctx context.Context, r *run, id string) error {
	for n := range maxIdle {
		s.mu.Lock()
		h, err := r.find(id)
		s.mu.Unlock()
		if err != nil {
			if n > 0 {
				return nil // it went as far as it goes
			}
			return err
		}
		if n > 0 && lasts(&h.message) {
			return nil
		}
		if err := s.decideOn(ctx, r, h, "", wire.Pass); err != nil {
			return err
		}
		id = ""
		next, cancel := context.WithTimeout(ctx, answerTime)
		_ = s.await(next, func(r *run) bool { return r.state() != Running }) // it may be busy for longer
		cancel()
	}
	s.note(fmt.Sprintf("%d messages have passed that change nothing: there is nothing to do.", maxIdle))
	return nil
}

// lasts says whether a message may change what outlives the process, or tells
// of such a change.
func lasts(m *wire.Message) bool {
	switch m.Effect {
	case wire.Write, wire.Commit, wire.Publish, wire.Ack, wire.Confirm, wire.Deliver, wire.Return, wire.Call:
		return true
	}
	return false
}

func (s *Session) crash(r *run, c Command) error {
	s.mu.Lock()
	var a *actor
	h, err := r.find(c.ID)
	switch {
	case c.Process != 0:
		for _, p := range r.procs {
			if p.life.Process == c.Process {
				a = p
			}
		}
		h = nil
		for _, p := range r.pending {
			if p.message.Process == c.Process && !p.decided {
				h = p
				break
			}
		}
	case err == nil:
		for _, p := range r.procs {
			if p.life.Process == h.message.Process {
				a = p
			}
		}
	default:
		for _, p := range r.last() {
			if !p.gone {
				a = p
			}
		}
	}
	if a == nil || a.gone {
		s.mu.Unlock()
		return errors.New("there is no process to crash: it has ended")
	}
	m := move{fault: crash.Kill, process: a.life.Process}
	if h != nil {
		m.point = h.message.Point
		r.struck[m.point] = crash.Kill
	}
	r.script = append(r.script, m)
	s.mu.Unlock()
	s.finish(a, "was crashed")
	return nil
}

func (s *Session) strike(ctx context.Context, r *run, c Command) error {
	s.mu.Lock()
	h, err := r.find(c.ID)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	fault := asFault[c.Act]
	if !slices.Contains(faults(&h.message), fault) {
		return fmt.Errorf("%s cannot strike before %s", c.Act, h.message.Name)
	}
	return s.decideOn(ctx, r, h, fault, kinds[c.Act])
}

func (s *Session) restart(r *run, process int) error {
	s.mu.Lock()
	slot := -1
	for _, a := range r.last() {
		if a.gone && (process == 0 || a.life.Process == process) {
			slot = a.life.Slot
			break
		}
	}
	if slot >= 0 {
		r.script = append(r.script, move{restart: true, slot: slot})
	}
	s.mu.Unlock()
	if slot < 0 {
		return errors.New("there is nothing to restart: the process runs, or what it has sent is still under way")
	}
	return s.launch(r, slot)
}

// rewind makes the run anew and does again what was done, up to message seq.
func (s *Session) rewind(ctx context.Context, old *run, seq int) error {
	s.take(old)
	s.mu.Lock()
	passed := map[wire.Point]bool{}
	for _, m := range old.trace.Messages {
		passed[m.Point] = m.Seq <= seq
	}
	n := 0
	for i, m := range old.script {
		if passed[m.point] {
			n = i + 1
		}
	}
	script := slices.Clone(old.script[:n])
	s.mu.Unlock()
	s.end(old)
	if err := s.begin(ctx); err != nil {
		s.note("The run could not be made anew: " + err.Error())
		return err
	}
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	for i, m := range script {
		if err := s.again(ctx, r, m); err != nil {
			s.note(fmt.Sprintf("This run went another way than the last one: after %d of %d steps %v.", i, n, err))
			break
		}
		// Each step is to have its own look at the tables and queues.
		looked, cancel := context.WithTimeout(ctx, answerTime)
		_ = s.await(looked, func(r *run) bool { return !r.stirred })
		cancel()
	}
	return nil
}

// again makes a move.
func (s *Session) again(ctx context.Context, r *run, m move) error {
	if m.restart {
		s.mu.Lock()
		r.script = append(r.script, m)
		s.mu.Unlock()
		return s.launch(r, m.slot)
	}
	var h *held
	if m.point != (wire.Point{}) {
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		err := s.await(ctx, func(r *run) bool {
			h, _ = r.find(m.point.String())
			return h != nil
		})
		if err != nil {
			return fmt.Errorf("%s did not come", m.point)
		}
	}
	switch {
	case m.fault == crash.Kill:
		c := Command{Process: m.process}
		if h != nil {
			c.ID = m.point.String()
		}
		return s.crash(r, c)
	case m.fault == "":
		return s.decideOn(ctx, r, h, "", wire.Pass)
	}
	for act, fault := range asFault {
		if fault == m.fault {
			return s.decideOn(ctx, r, h, fault, kinds[act])
		}
	}
	return nil
}
