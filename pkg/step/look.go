package step

import (
	"cmp"
	"context"
	"reflect"
	"time"

	"crashcourse/pkg/view"
)

// look looks at the tables and queues whenever things have come to rest.
func (s *Session) look() {
	for s.ctx.Err() == nil {
		s.mu.Lock()
		r, changed := s.run, s.changed
		rest := stillRunning
		if r.state() == Waiting {
			rest = stillWaiting
		}
		wait := rest - time.Since(r.moved)
		due := r.stirred && wait <= 0
		if !r.stirred {
			wait = lookAgain
		}
		s.mu.Unlock()
		if !due {
			timer := time.NewTimer(wait)
			select {
			case <-s.ctx.Done():
			case <-changed:
				timer.Stop()
				continue
			case <-timer.C:
			}
			timer.Stop()
		}
		s.glance(r, due)
	}
}

// glance looks once.
func (s *Session) glance(r *run, due bool) {
	s.take(r)
	s.mu.Lock()
	after := r.read
	if due {
		r.stirred = false
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.ctx, lookTime)
	defer cancel()
	var err error
	if !due {
		err = s.observer.ListQueues(ctx)
	}
	things, lookErr := s.observer.Look(ctx)
	if err = cmp.Or(err, lookErr); err != nil {
		if s.ctx.Err() == nil {
			s.note("The tables and queues cannot be looked at: " + err.Error())
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := &r.scenes[len(r.scenes)-1]
	switch {
	case reflect.DeepEqual(last.Things, things):
	case last.After == after: // somebody else has changed something
		last.Things = things
		r.edits++
	default:
		r.scenes = append(r.scenes, view.Scene{After: after, Things: things})
	}
	s.tell()
}

// note tells whoever follows. The same is not said twice in a row.
func (s *Session) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.notes) > 0 && s.notes[len(s.notes)-1] == text {
		return
	}
	s.notes = append(s.notes, text)
	s.tell()
}
