// Package progress remembers how far a learner has come: for each exercise the
// last verdict, the best one, and when.
//
// There is one JSON file per exercise in the folder progress below the state
// folder, so that one damaged file costs one exercise. Files are replaced in
// one step. A file that cannot be read is renamed, never overwritten:
// something may still be saved from it.
//
// A verdict is about one text of the answer and one judge; [Result] holds the
// hashes of both, and [Exercise.Stale] tells when they are no longer those of
// today.
package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/state"
)

// version is the version of the files' form.
const version = 1

// Result is what is kept of a verdict.
type Result struct {
	Verdict    string    `json:"verdict"` // pass or fail
	Score      float64   `json:"score"`   // 0 to 1
	Mode       string    `json:"mode"`    // quick or full
	Seed       uint64    `json:"seed"`
	At         time.Time `json:"at"`
	DurationMS int64     `json:"duration_ms"`
	Points     int       `json:"points"`           // points at which it was crashed
	Survived   int       `json:"survived"`         // those that it survived
	Broke      []string  `json:"broke,omitempty"`  // invariants that did not hold
	Answer     string    `json:"answer,omitempty"` // hash of the answer; "" is unknown
	File       string    `json:"file,omitempty"`   // where the answer was read from; "" is one of the course's places
	Judge      string    `json:"judge,omitempty"`  // hash of the judge; "" is unknown
}

// Exercise is a learner's progress in one exercise.
type Exercise struct {
	Version  int        `json:"version"`
	Exercise string     `json:"exercise"` // pattern/exercise
	Tries    int        `json:"tries"`    // verdicts so far; unjudged ones do not count
	Last     Result     `json:"last"`
	Best     Result     `json:"best"`             // a pass before a fail, then by score, then the newest
	Passed   *time.Time `json:"passed,omitempty"` // the first pass; nil: none yet
}

// Staleness says why a verdict is not about what is there today.
type Staleness struct {
	Answer bool `json:"answer"` // the answer has changed since
	Judge  bool `json:"judge"`  // the judge has changed since
}

// Any reports whether either has changed.
func (s Staleness) Any() bool { return s.Answer || s.Judge }

// Stale compares the last verdict with today's answers (an exercise may be
// answered in several places) and judge. What is unknown, on either side, is
// not called stale.
func (e Exercise) Stale(answers []string, judge string) Staleness {
	return Staleness{
		Answer: e.Last.Answer != "" && len(answers) > 0 && !slices.Contains(answers, e.Last.Answer),
		Judge:  e.Last.Judge != "" && judge != "" && e.Last.Judge != judge,
	}
}

// Record adds a verdict to the progress kept in the state folder dir. An
// unjudged verdict says nothing about the learner and changes nothing.
func Record(dir string, v crash.Verdict) error {
	if v.Verdict == crash.Unjudged {
		return nil
	}
	if pattern, name, ok := strings.Cut(v.Exercise, "/"); !ok || pattern == "" || name == "" || strings.ContainsAny(v.Exercise, `\. `) || strings.Contains(name, "/") {
		return fmt.Errorf("progress: %q is not the id of an exercise", v.Exercise)
	}
	dir = folder(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(dir, strings.ReplaceAll(v.Exercise, "/", "-")+".json")
	e, _, err := read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r := summary(v)
	if e.Tries == 0 || better(r, e.Best) {
		e.Best = r
	}
	if r.Verdict == crash.Pass && e.Passed == nil {
		e.Passed = &r.At
	}
	e.Version, e.Exercise, e.Last = version, v.Exercise, r
	e.Tries++
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	return state.WriteFile(path, append(b, '\n'), 0o644)
}

// Load returns the progress kept in the state folder dir, ordered by exercise.
// aside names the damaged files that it had to set aside, under their new
// names.
func Load(dir string) (list []Exercise, aside []string, err error) {
	dir = folder(dir)
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, nil, fmt.Errorf("progress: %w", err)
	}
	for _, path := range paths {
		e, moved, err := read(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			return nil, aside, err
		case moved != "":
			aside = append(aside, moved)
		default:
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Exercise) int { return strings.Compare(a.Exercise, b.Exercise) })
	return list, aside, nil
}

func folder(dir string) string { return filepath.Join(dir, "progress") }

// read returns the content of one file. A damaged one is moved aside; the
// result is then empty and moved is its new name.
func read(path string) (e Exercise, moved string, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Exercise{}, "", fmt.Errorf("progress: %w", err)
	}
	if json.Unmarshal(b, &e) == nil && e.Version == version && e.Exercise != "" {
		return e, "", nil
	}
	moved = path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(path, moved); err != nil {
		return Exercise{}, "", fmt.Errorf("progress: set a damaged file aside: %w", err)
	}
	return Exercise{}, moved, nil
}

// lock keeps two judges from writing at once. It goes when the process does.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("progress: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("progress: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func summary(v crash.Verdict) Result {
	r := Result{
		Verdict: v.Verdict, Score: v.Score, Mode: string(v.Mode), Seed: v.Seed, At: time.Now().UTC().Truncate(time.Second),
		DurationMS: v.DurationMS, Answer: v.Answer, File: v.File, Judge: v.Judge,
	}
	for _, p := range v.Points {
		switch p.Outcome {
		case crash.Held:
			r.Points++
			r.Survived++
		case crash.Violated, crash.Hung:
			r.Points++
		}
	}
	for _, i := range v.Invariants {
		if !i.Held {
			r.Broke = append(r.Broke, i.Name)
		}
	}
	return r
}

func better(a, b Result) bool {
	if (a.Verdict == crash.Pass) != (b.Verdict == crash.Pass) {
		return a.Verdict == crash.Pass
	}
	return a.Score >= b.Score
}
