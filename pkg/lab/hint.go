package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/state"
)

// Hint shows one more hint about the last verdict on an exercise. The report
// shows the first; each call goes one step further, to the last one. A new
// verdict starts again.
func Hint(id string) {
	text, err := hint(id)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	newOutput().say("%s", text)
}

// ladder is how far down somebody has climbed.
type ladder struct {
	Seed  uint64 `json:"seed"` // of the verdict
	Shown int    `json:"shown"`
}

func hint(id string) (string, error) {
	v, err := exercise.LastVerdict(id)
	if errors.Is(err, exercise.ErrNoVerdict) {
		return fmt.Sprintf("There is no verdict on %s yet: run its cell first.", id), nil
	}
	if err != nil {
		return "", err
	}
	if v.Verdict == crash.Pass {
		return id + " passes. There is nothing to hint at.", nil
	}
	if v.Failure == nil || len(v.Failure.Hints) == 0 {
		return "Nothing of " + id + " has been crashed yet. Write an answer and run its cell; hints are about what breaks then.", nil
	}
	dir, err := state.Dir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "lab", "hints-"+strings.ReplaceAll(id, "/", "-")+".json")
	var at ladder
	if b, err := os.ReadFile(file); err == nil {
		_ = json.Unmarshal(b, &at) // damaged: start again
	}
	if at.Seed != v.Seed || at.Shown < 1 {
		at = ladder{Seed: v.Seed, Shown: 1} // the report has shown the first
	}
	hints := v.Failure.Hints
	at.Shown = min(at.Shown+1, len(hints))
	b, err := json.Marshal(at)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", fmt.Errorf("lab: remember the hint: %w", err)
	}
	if err := state.WriteFile(file, b, 0o644); err != nil {
		return "", err
	}
	text := fmt.Sprintf("Hint %d of %d, about %s: %s", at.Shown, len(hints), v.Failure.Invariant, hints[at.Shown-1])
	if at.Shown == len(hints) {
		text += " That is the last one."
	}
	return text, nil
}
