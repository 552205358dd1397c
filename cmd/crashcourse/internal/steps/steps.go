// Package steps tells a person what a long piece of work is doing.
//
// Each step prints one line when it begins and one when it ends, with the
// time since the work began. Whatever lasts is named again now and then, so
// that silence never looks like a hang. A nil [*Log] says nothing, so that
// packages need not ask whether somebody listens.
package steps

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// reminder is how often a step that lasts is named again.
const reminder = 10 * time.Second

// Log prints steps. Make one with [New]. It is safe for concurrent use.
type Log struct {
	mu    sync.Mutex
	out   io.Writer
	begin time.Time
	open  []*Step
	tick  *time.Timer
}

// Step is a piece of work under way.
type Step struct {
	log    *Log
	name   string
	begin  time.Time
	detail string
}

// New returns a Log that writes to out.
func New(out io.Writer) *Log { return &Log{out: out, begin: time.Now()} }

// Begin says that the work called name has begun. The caller ends it with
// [Step.Done] or [Step.Fail].
func (l *Log) Begin(name, format string, args ...any) *Step {
	s := &Step{log: l, name: name, begin: time.Now()}
	if l == nil {
		return s
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, s)
	l.print(name, fmt.Sprintf(format, args...))
	if l.tick == nil {
		l.tick = time.AfterFunc(reminder, l.remind)
	}
	return s
}

// Say prints one line under name.
func (l *Log) Say(name, format string, args ...any) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.print(name, fmt.Sprintf(format, args...))
}

// Now sets what the step is busy with; a later reminder shows it.
func (s *Step) Now(format string, args ...any) {
	if s.log == nil {
		return
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.detail = fmt.Sprintf(format, args...)
}

// Done ends the step with a line of what came of it.
func (s *Step) Done(format string, args ...any) {
	s.end(fmt.Sprintf(format, args...))
}

// Fail ends the step without a line: the error it led to is printed elsewhere.
func (s *Step) Fail() { s.end("") }

func (s *Step) end(text string) {
	l := s.log
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = slices.DeleteFunc(l.open, func(o *Step) bool { return o == s })
	if len(l.open) == 0 && l.tick != nil {
		l.tick.Stop()
		l.tick = nil
	}
	if text != "" {
		l.print(s.name, fmt.Sprintf("%s (%s)", text, short(time.Since(s.begin))))
	}
}

func (l *Log) remind() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tick == nil {
		return
	}
	for _, s := range l.open {
		detail := s.detail
		if detail == "" {
			detail = "still at it"
		}
		l.print(s.name, fmt.Sprintf("… %s (%s)", detail, short(time.Since(s.begin))))
	}
	l.tick = time.AfterFunc(reminder, l.remind)
}

// print writes one line; the caller holds the lock. What cannot be written
// has no reader, so the error is of no use to anybody.
func (l *Log) print(name, text string) {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", " ")
	_, _ = fmt.Fprintf(l.out, "%7s  %-10s %s\n", short(time.Since(l.begin)), name, text)
}

func short(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }
