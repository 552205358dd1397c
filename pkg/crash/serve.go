package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"crashcourse/pkg/state"
)

// JudgeEnv is set in the environment of a judge's process. Its input is one
// [Request] as JSON, its output [Line]s.
const JudgeEnv = "CRASHCOURSE_JUDGE"

// Request asks a judge's process for a verdict. It carries credentials, so it
// travels through a pipe and is never stored.
type Request struct {
	Exercise string        `json:"exercise"`
	Program  Program       `json:"program"`
	Servers  state.Servers `json:"servers"`
	Mode     Mode          `json:"mode"`
	Seed     uint64        `json:"seed"`
	Workers  int           `json:"workers,omitempty"`
	Schedule string        `json:"schedule,omitempty"` // see ParseSchedule
	Variant  string        `json:"variant,omitempty"`
	Until    string        `json:"until,omitempty"`
	Whole    bool          `json:"whole,omitempty"`
	Faults   []Fault       `json:"faults,omitempty"`
	Budget   time.Duration `json:"budget,omitempty"`
}

// Line is one line of a judge's output.
type Line struct {
	Progress *Progress `json:"progress,omitempty"`
	Verdict  *Verdict  `json:"verdict,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// Serve answers one request read from in. A judge's TestMain calls it when
// [JudgeEnv] is set.
func Serve(ctx context.Context, in io.Reader, out io.Writer, specs ...*Spec) error {
	var mu sync.Mutex
	w := bufio.NewWriter(out)
	send := func(l Line) {
		mu.Lock()
		defer mu.Unlock()
		b, err := json.Marshal(l)
		if err != nil {
			b = fmt.Appendf(nil, `{"error":%q}`, err)
		}
		_, _ = w.Write(append(b, '\n')) // whoever asked has gone: nobody is left to tell
		_ = w.Flush()
	}
	var r Request
	decode := json.NewDecoder(in)
	if err := decode.Decode(&r); err != nil {
		return fmt.Errorf("crash: read the request: %w", err)
	}
	// The asker's end of the pipe closes when it goes away: then stop too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel(errors.New("whoever asked for the verdict has gone"))
	}()
	var spec *Spec
	for _, s := range specs {
		if s.ID == r.Exercise {
			spec = s
		}
	}
	if spec == nil {
		err := fmt.Errorf("crash: this judge knows no exercise %q", r.Exercise)
		send(Line{Error: err.Error()})
		return err
	}
	schedule, err := ParseSchedule(r.Schedule)
	if err != nil {
		send(Line{Error: err.Error()})
		return err
	}
	v, err := Judge(ctx, r.Servers, spec, r.Program, Options{
		Mode: r.Mode, Seed: r.Seed, Workers: r.Workers, Schedule: schedule, Variant: r.Variant,
		Until: r.Until, Whole: r.Whole, Faults: r.Faults, Budget: r.Budget,
		Replay:   "crashcourse replay " + spec.ID,
		Progress: func(p Progress) { send(Line{Progress: &p}) },
	})
	if err != nil {
		send(Line{Error: err.Error()})
		return err
	}
	send(Line{Verdict: &v})
	return nil
}

// ServeStandard is [Serve] over standard input and output. It returns the
// process's exit code.
func ServeStandard(specs ...*Spec) int {
	if err := Serve(context.Background(), os.Stdin, os.Stdout, specs...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
