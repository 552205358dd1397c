// Package terminal shows a run in a terminal, message by message, with what the
// tables and queues held: a recorded one, or one that waits at each message.
//
// Names, SQL and rows come from programs under test: whatever reaches the screen
// has gone through [view.Line] first.
package terminal

import (
	"slices"

	tea "charm.land/bubbletea/v2"

	"crashcourse/pkg/step"
	"crashcourse/pkg/view"
)

// Model is a run on the screen. It is a [tea.Model].
type Model struct {
	rec  view.Recording
	list view.List
	at   int // the selected message, a place in list.Steps; -1: before the first

	live     *live // nil: a recording, or a session that is over
	overWhy  string
	quitting bool

	note     string // what the last key came to
	help     bool
	helpDown int // how far it is scrolled

	width, height int
	top           int  // the first row of the list that shows
	down          int  // how far the pane of tables is scrolled
	moved         bool // another step was selected since the last drawing
}

// New shows a recording. It begins at the start, where one reads on with one key.
func New(rec view.Recording) *Model {
	m := &Model{width: 80, height: 24}
	m.take(rec)
	m.choose(-1)
	return m
}

// take lays a recording out.
func (m *Model) take(rec view.Recording) {
	m.rec = rec
	m.list = view.NewList(rec)
}

// Init implements [tea.Model].
func (m *Model) Init() tea.Cmd {
	if m.live == nil {
		return nil
	}
	return m.live.next
}

// Update implements [tea.Model].
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	case happened:
		return m, m.apply(msg)
	case done:
		m.finish(msg)
	case closed:
		return m, tea.Quit
	}
	return m, nil
}

// key does what a key asks for.
func (m *Model) key(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c":
		return m.quit(key)
	case "?":
		m.help, m.helpDown = !m.help, 0
		return nil
	}
	if m.help {
		switch page := max(1, m.height/2); key {
		case "d", "down", "pgdown":
			m.helpDown += page
		case "u", "up", "pgup":
			m.helpDown -= page
		default:
			m.help = false
		}
		return nil
	}
	m.note = ""
	if m.live != nil {
		if cmd, ok := m.command(key); ok {
			return cmd
		}
	}
	last := len(m.list.Steps) - 1
	page := max(1, m.layout().list-2)
	switch key {
	case "right", "down", "n", "space":
		if m.at < last {
			m.choose(m.at + 1)
		} else if m.live != nil {
			m.note = newest
		} else {
			m.note = lastStep
		}
	case "left", "up", "p":
		if m.at < 0 {
			m.note = firstStep
		}
		m.choose(m.at - 1)
	case "pgdown":
		m.choose(m.at + page)
	case "pgup":
		m.choose(m.at - page)
	case "home":
		m.choose(-1)
	case "end":
		m.choose(last)
	case "e":
		m.seek(1, noEffect, func(r view.ListRow) bool { return r.Effect })
	case "E":
		m.seek(-1, noEffectThere, func(r view.ListRow) bool { return r.Effect })
	case "f":
		m.seek(1, noFault, func(r view.ListRow) bool { return r.Kind == view.ListFault || r.Kind == view.ListBroken })
	case "b":
		m.seekBroken()
	case "d":
		m.down += max(1, m.layout().pane/2)
	case "u":
		m.down = max(0, m.down-max(1, m.layout().pane/2))
	}
	return nil
}

// quit ends the program, and the session first. Who presses the key again does
// not wait for that: the command ends the session in any case.
func (m *Model) quit(key string) tea.Cmd {
	if m.live == nil || m.quitting && key == "ctrl+c" {
		return tea.Quit
	}
	if m.quitting {
		return nil
	}
	m.quitting = true
	m.help = false
	return m.live.close
}

// choose selects a message, as far as there is one.
func (m *Model) choose(at int) {
	m.at = max(-1, min(at, len(m.list.Steps)-1))
	m.down, m.moved = 0, true
	if m.live != nil {
		m.live.now = m.at == len(m.list.Steps)-1
	}
}

// seek goes to the nearest step with such a row in a direction.
func (m *Model) seek(by int, none string, ok func(view.ListRow) bool) {
	row := -1
	if m.at >= 0 {
		row = m.list.Steps[m.at]
	}
	for row += by; row >= 0 && row < len(m.list.Rows); row += by {
		if r := m.list.Rows[row]; ok(r) && r.Step != m.at {
			m.choose(r.Step)
			return
		}
	}
	m.note = none
}

// seekBroken goes to where an invariant broke; again, to the next one.
func (m *Model) seekBroken() {
	var at []int
	for _, r := range m.list.Rows {
		if r.Kind == view.ListBroken {
			at = append(at, r.Step)
		}
	}
	if len(at) == 0 {
		m.note = nothingBroke
		return
	}
	next := slices.IndexFunc(at, func(step int) bool { return step > m.at })
	m.choose(at[max(0, next)])
}

// chosen is the message that a command is about, or nil.
func (m *Model) chosen() *step.Held {
	if m.live == nil || len(m.live.pending) == 0 {
		return nil
	}
	i := slices.IndexFunc(m.live.pending, func(h step.Held) bool { return h.ID == m.live.picked })
	return &m.live.pending[max(0, i)]
}
