package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"crashcourse/cmd/crashcourse/internal/answers"
	"crashcourse/pkg/crash"
)

// keptVerdict is a file of `verify --verdicts`.
type keptVerdict struct {
	answers.Answer
	Phases  map[string]float64 `json:"phases"` // seconds spent, by what the judge was doing
	Verdict crash.Verdict      `json:"verdict"`
}

// keepVerdict writes a verdict into a folder, without its traces.
func keepVerdict(dir string, of verified, v crash.Verdict, phases map[string]float64) error {
	v.Golden, v.Output = nil, ""
	if v.Failure != nil {
		short := *v.Failure
		short.Trace, short.Scenes, short.Tables = nil, nil, nil
		v.Failure = &short
	}
	b, err := json.MarshalIndent(keptVerdict{of.Answer, phases, v}, "", " ")
	if err != nil {
		return fmt.Errorf("encode the verdict: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("keep the verdict: %w", err)
	}
	name := fmt.Sprintf("%s-%d.json", strings.ReplaceAll(of.id(), "/", "-"), v.Seed)
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
		return fmt.Errorf("keep the verdict: %w", err)
	}
	return nil
}

// phases adds up how long a judge does what it says it does.
type phases struct {
	doing string
	since time.Time
	spent map[string]float64
}

func newPhases() *phases {
	return &phases{doing: "starting", since: time.Now(), spent: map[string]float64{}}
}

func (p *phases) progress(now crash.Progress) { p.turn(now.Doing) }

func (p *phases) turn(to string) {
	at := time.Now()
	p.spent[p.doing] += at.Sub(p.since).Seconds()
	p.doing, p.since = to, at
}

func (p *phases) end() map[string]float64 {
	p.turn("")
	return p.spent
}
