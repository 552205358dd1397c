package terminal

import (
	"context"
	"errors"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"crashcourse/pkg/step"
	"crashcourse/pkg/view"
)

// session is what is stepped: a [step.Session].
type session interface {
	Do(context.Context, step.Command) error
	Close(why string)
}

// feed tells what has changed: a [step.Feed].
type feed interface {
	Next(context.Context) ([]step.Event, error)
}

// live is a session on the screen. What asks the session for something runs
// beside the screen, and comes back as a message.
type live struct {
	ctx     context.Context
	session session
	feed    feed

	pending []step.Held
	state   step.State
	picked  string   // the id of the message that was chosen; empty: the one that has waited longest
	busy    step.Act // the command that is on its way
	now     bool     // the newest message stays selected
}

// NewLive steps through a session. ctx bounds its commands.
func NewLive(ctx context.Context, s *step.Session) *Model {
	return newLive(ctx, s, s.Follow())
}

func newLive(ctx context.Context, s session, f feed) *Model {
	m := New(view.Recording{})
	m.live = &live{ctx: ctx, session: s, feed: f, state: step.Running, now: true}
	return m
}

// happened is what the feed told; done is a command's end; closed is the end of
// the session because somebody has asked for it here.
type (
	happened struct {
		events []step.Event
		err    error
	}
	done   struct{ err error }
	closed struct{}
)

func (l *live) next() tea.Msg {
	events, err := l.feed.Next(l.ctx)
	return happened{events, err}
}

func (l *live) close() tea.Msg {
	l.session.Close("You have ended it.")
	return closed{}
}

// apply takes in what has changed, and waits for more.
func (m *Model) apply(h happened) tea.Cmd {
	l := m.live
	switch {
	case l == nil:
		return nil
	case errors.Is(h.err, step.ErrOver), l.ctx.Err() != nil:
		return nil
	case h.err != nil:
		m.note = fill(lostFeed, "text", sentence(h.err))
		return nil
	}
	rec := m.rec
	for _, e := range h.events {
		switch e.Type {
		case step.Reset:
			rec, l.pending, l.state = *e.Recording, e.Pending, e.State
			l.now, l.picked = true, ""
		case step.Passed:
			rec.Trace.Messages = append(rec.Trace.Messages, e.Messages...)
			if e.Scene != nil {
				rec.Scenes = withScene(rec.Scenes, *e.Scene)
			}
		case step.Lives:
			rec.Lives = e.Lives
		case step.Pending:
			l.pending, l.state = e.Pending, e.State
		case step.Note:
			m.note = view.Line(e.Text, 300)
		case step.Over:
			m.overWhy = view.Line(e.Text, 200)
		}
	}
	m.take(rec)
	at := m.at
	if l.now {
		at = len(m.list.Steps) - 1
	}
	if down := m.down; at == m.at {
		m.choose(at)
		m.down = down // whoever reads on there is not disturbed
	} else {
		m.choose(at)
	}
	if m.overWhy != "" && !m.quitting {
		m.live = nil
		return nil
	}
	return l.next
}

// withScene adds a scene, or puts it in place of the one of the same message.
func withScene(scenes []view.Scene, s view.Scene) []view.Scene {
	if n := len(scenes); n > 0 && scenes[n-1].After == s.After {
		scenes = slices.Clone(scenes)
		scenes[n-1] = s
		return scenes
	}
	return append(scenes, s)
}

// finish takes in how a command has ended.
func (m *Model) finish(d done) {
	if m.live == nil {
		return
	}
	act := m.live.busy
	m.live.busy = ""
	if m.note == busy {
		m.note = ""
	}
	if errors.Is(d.err, step.ErrBusy) && (act == step.Pass || act == step.ToEffect) {
		return // the key was pressed a moment too early; the screen says that they are busy
	}
	if d.err != nil {
		m.note = fill(couldNot, "text", sentence(d.err))
	}
}

// sentence makes a sentence of an error.
func sentence(err error) string {
	s := strings.TrimRight(view.Line(strings.TrimPrefix(err.Error(), "step: "), 300), ".")
	return s + "."
}

// dead says whether a process has ended that can be started again.
func (m *Model) dead() bool {
	newest := map[int]bool{} // by slot
	for _, life := range m.rec.Lives {
		newest[life.Slot] = life.End != ""
	}
	for _, ended := range newest {
		if ended {
			return true
		}
	}
	return false
}

var commands = map[string]step.Act{
	"space": step.Pass, "n": step.Pass, "e": step.ToEffect, "c": step.Crash, "x": step.Cut,
	"h": step.Blackhole, "k": step.Nack, "f": step.Fail, "r": step.Restart, "w": step.Rewind,
}

// command gives the session the command of a key, if it is one.
func (m *Model) command(key string) (tea.Cmd, bool) {
	l := m.live
	if key == "tab" || key == "shift+tab" {
		m.pick(key)
		return nil, true
	}
	act, ok := commands[key]
	if !ok {
		return nil, false
	}
	if l.busy != "" || m.quitting {
		m.note = busy
		return nil, true
	}
	c := step.Command{Act: act}
	switch h := m.chosen(); act {
	case step.Pass, step.ToEffect:
		c.ID = l.picked // else the one that has waited longest, even if the screen does not know it yet
	case step.Rewind:
		if m.at >= len(m.list.Steps)-1 {
			m.note = rewindWhere
			return nil, true
		}
		if m.at >= 0 {
			c.Seq = m.message(m.at).Seq
		}
	case step.Restart:
	default:
		if h != nil {
			c.ID = h.ID
		}
	}
	l.busy = act
	if act != step.Rewind {
		m.choose(len(m.list.Steps) - 1) // what it does shows there
	}
	l.picked = ""
	return func() tea.Msg { return done{l.session.Do(l.ctx, c)} }, true
}

// pick chooses another waiting message.
func (m *Model) pick(key string) {
	l := m.live
	switch len(l.pending) {
	case 0:
		m.note = noneWaits
		return
	case 1:
		m.note = oneWaits
	}
	h := m.chosen()
	i := slices.IndexFunc(l.pending, func(p step.Held) bool { return p.ID == h.ID })
	by := 1
	if key == "shift+tab" {
		by = len(l.pending) - 1
	}
	l.picked = l.pending[(i+by)%len(l.pending)].ID
	m.choose(len(m.list.Steps) - 1)
}
