package step

import (
	"context"
	"errors"
	"slices"
	"strings"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/view"
	"crashcourse/pkg/wire"
)

// Event is something that has changed in a session. Its JSON form is what the
// view reads.
type Event struct {
	Type      EventType       `json:"type"`
	Recording *view.Recording `json:"recording,omitempty"` // Reset
	Messages  []wire.Message  `json:"messages,omitempty"`  // Passed
	Scene     *view.Scene     `json:"scene,omitempty"`     // Passed: the newest, if it is new
	Pending   []Held          `json:"pending,omitempty"`   // Reset, Pending
	State     State           `json:"state,omitempty"`     // Reset, Pending
	Lives     []view.Life     `json:"lives,omitempty"`     // Lives
	Text      string          `json:"text,omitempty"`      // Note, Over
}

// EventType is the kind of an [Event].
type EventType string

// The kinds of events.
const (
	Reset   EventType = "reset" // the first, and after a rewind: forget the rest
	Passed  EventType = "passed"
	Pending EventType = "pending"
	Lives   EventType = "lives"
	Note    EventType = "note"
	Over    EventType = "closed" // the last
)

// Held is a message that waits to be let pass.
type Held struct {
	wire.Message
	ID     string        `json:"id"` // see [wire.Point.String]
	Faults []crash.Fault `json:"faults"`
}

// ErrOver is returned by [Feed.Next] after the last event.
var ErrOver = errors.New("step: the session is over")

// Feed follows a session. It is for one goroutine.
type Feed struct {
	s        *Session
	run      int
	messages int
	scenes   int
	edits    int
	lives    int
	notes    int
	pending  string
	over     bool
}

// Follow returns a feed that begins with all there is.
func (s *Session) Follow() *Feed { return &Feed{s: s} }

// Next waits for something to change and returns what did. After the event Over
// it returns [ErrOver].
func (f *Feed) Next(ctx context.Context) ([]Event, error) {
	if f.over {
		return nil, ErrOver
	}
	s := f.s
	for {
		s.mu.Lock()
		r := s.run
		s.mu.Unlock()
		s.take(r)
		s.mu.Lock()
		var events []Event
		if r == s.run {
			events = f.diff(r)
		}
		changed := s.changed
		s.mu.Unlock()
		if len(events) > 0 {
			return events, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// diff is called with the session's mu held.
func (f *Feed) diff(r *run) (events []Event) {
	s := f.s
	pending, state := r.waiting(), r.state()
	if s.closed != "" {
		pending, state = nil, Closed
	}
	key := string(state)
	for _, h := range pending {
		key += " " + h.ID
	}
	if f.run != s.runs {
		f.run, f.messages, f.scenes, f.edits, f.lives, f.pending = s.runs, len(r.trace.Messages), len(r.scenes), r.edits, r.livesNow, key
		rec := r.recording()
		events = append(events, Event{Type: Reset, Recording: &rec, Pending: pending, State: state})
	}
	var messages []wire.Message
	if n := len(r.trace.Messages); n > f.messages {
		messages = slices.Clone(r.trace.Messages[f.messages:])
		f.messages = n
	}
	var scenes []view.Scene
	switch {
	case len(r.scenes) > f.scenes:
		scenes = r.scenes[f.scenes:]
	case r.edits != f.edits:
		scenes = r.scenes[len(r.scenes)-1:]
	}
	f.scenes, f.edits = len(r.scenes), r.edits
	if len(scenes) == 0 && len(messages) > 0 {
		events = append(events, Event{Type: Passed, Messages: messages})
	}
	for i := range scenes {
		scene := scenes[i]
		events = append(events, Event{Type: Passed, Messages: messages, Scene: &scene})
		messages = nil
	}
	if r.livesNow != f.lives {
		f.lives = r.livesNow
		events = append(events, Event{Type: Lives, Lives: r.lives()})
	}
	if key != f.pending {
		f.pending = key
		events = append(events, Event{Type: Pending, Pending: pending, State: state})
	}
	for _, n := range s.notes[f.notes:] {
		events = append(events, Event{Type: Note, Text: n})
	}
	f.notes = len(s.notes)
	if s.closed != "" {
		f.over = true
		events = append(events, Event{Type: Over, Text: s.closed})
	}
	return events
}

// waiting lists what waits, in the order of arrival.
func (r *run) waiting() []Held {
	var all []Held
	for _, h := range r.pending {
		if !h.decided {
			all = append(all, Held{Message: h.message, ID: h.message.Point.String(), Faults: faults(&h.message)})
		}
	}
	return all
}

// faults are those that can strike before a message.
func faults(m *wire.Message) []crash.Fault {
	all := []crash.Fault{crash.Kill, crash.Cut, crash.Blackhole}
	switch {
	case m.Effect == wire.Publish:
		all = append(all, crash.Nack)
	case crash.CanFail(m) && !strings.HasPrefix(m.Name, "ROLLBACK"):
		all = append(all, crash.FailStatement)
	}
	return all
}
