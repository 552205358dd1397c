package exercise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/progress"
	"crashcourse/pkg/state"
	"crashcourse/pkg/view"
	"crashcourse/pkg/wire"
)

// Record keeps a verdict as the last one of its exercise, and the source of the
// answer with it, for the learner's progress and for replays. An unjudged
// verdict is not kept.
func Record(v crash.Verdict, source []byte) error {
	if v.Verdict == crash.Unjudged {
		return nil
	}
	dir, err := state.Dir()
	if err != nil {
		return err
	}
	path, err := verdictFile(v.Exercise)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(passedFile(path)), 0o755); err != nil {
		return fmt.Errorf("exercise: keep the verdict: %w", err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("exercise: keep the verdict: %w", err)
	}
	if err := state.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("exercise: keep the verdict: %w", err)
	}
	if err := state.WriteFile(sourceFile(path), source, 0o644); err != nil {
		return fmt.Errorf("exercise: keep the answer: %w", err)
	}
	if v.Verdict == crash.Pass && v.Golden != nil {
		b, err := json.Marshal(v.Golden)
		if err == nil {
			err = state.WriteFile(passedFile(path), b, 0o644)
		}
		if err != nil {
			return fmt.Errorf("exercise: keep the run that passed: %w", err)
		}
	}
	return progress.Record(dir, v)
}

func sourceFile(verdict string) string { return strings.TrimSuffix(verdict, ".json") + ".go.txt" }

func passedFile(verdict string) string {
	return filepath.Join(filepath.Dir(verdict), "passed", filepath.Base(verdict))
}

// Recording makes a recording of the run that failed in v, with the last run of
// the exercise that passed behind it, to compare.
func Recording(v crash.Verdict) view.Recording {
	var passed *wire.Trace
	if path, err := verdictFile(v.Exercise); err == nil {
		if b, err := os.ReadFile(passedFile(path)); err == nil { // else none has passed yet
			var t wire.Trace
			if json.Unmarshal(b, &t) == nil && t.Version == wire.TraceVersion {
				passed = &t
			}
		}
	}
	return view.Record(v, passed)
}

// LastSource returns the source of the answer that [LastVerdict] is about. It is
// empty if that is not known.
func LastSource(id string) []byte {
	path, err := verdictFile(id)
	if err != nil {
		return nil
	}
	b, err := os.ReadFile(sourceFile(path))
	if err != nil {
		return nil // there is a verdict without it, or none
	}
	return b
}

// ErrNoVerdict is wrapped by the error of [LastVerdict] when there is none yet.
var ErrNoVerdict = errors.New("no verdict yet")

// LastVerdict returns the last recorded verdict of an exercise.
func LastVerdict(id string) (crash.Verdict, error) {
	path, err := verdictFile(id)
	if err != nil {
		return crash.Verdict{}, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return crash.Verdict{}, fmt.Errorf("exercise: %s: %w: run its cell, or `crashcourse check %[1]s`", id, ErrNoVerdict)
	}
	if err != nil {
		return crash.Verdict{}, fmt.Errorf("exercise: read the last verdict: %w", err)
	}
	return ReadVerdict(b)
}

// ReadVerdict reads a verdict from its JSON form.
func ReadVerdict(b []byte) (crash.Verdict, error) {
	var v crash.Verdict
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("exercise: this is no verdict: %w", err)
	}
	if v.Version != 1 || v.Exercise == "" {
		return v, fmt.Errorf("exercise: this is no verdict of version 1 but of version %d", v.Version)
	}
	return v, nil
}

func verdictFile(id string) (string, error) {
	dir, err := state.Dir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "verdicts", strings.ReplaceAll(id, "/", "-")+".json"), nil
}
