package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"crashcourse/cmd/crashcourse/internal/answers"
	"crashcourse/cmd/crashcourse/internal/servers"
	"crashcourse/cmd/crashcourse/internal/steps"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/view"
)

// Exit codes of check.
const (
	exitFail     = 1
	exitUnjudged = 2
)

func newCheck() *cobra.Command {
	var file, notebook string
	var quick, full, asJSON bool
	var seed uint64
	cmd := &cobra.Command{
		Use:   "check PATTERN/EXERCISE",
		Short: "Judge an answer: crash it at every step, and look at what was lost",
		Long: `Judge an answer. It runs as a process of its own, again and again, and is
crashed at one step of its conversation with PostgreSQL and RabbitMQ after the
other. Then the tables and queues are looked at from outside.

The answer is Go source that declares the exercise's function, in any package.
Without --file or --notebook it is the one in exercises/PATTERN.

Exit codes: 0 it passes, 1 it fails (also when it does not compile, does
nothing, or hangs), 2 it could not be judged, 64 wrong use.`,
		Example: `  crashcourse check outbox/relay
  crashcourse check outbox/relay --file answer.go --full
  crashcourse check outbox/place --notebook notebooks/01_outbox.ipynb
  crashcourse check outbox/relay --file answer.go --json | jq .invariants`,
		Args: oneExercise,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case file != "" && notebook != "":
				return usagef("--file and --notebook exclude each other")
			case quick && full:
				return usagef("--quick and --full exclude each other")
			}
			if !cmd.Flags().Changed("seed") {
				seed = rand.Uint64() >> 12 // exact in every JSON reader
			}
			mode := crash.Quick
			if full {
				mode = crash.Full
			}
			src, err := source(args[0], file, notebook)
			if err != nil {
				return err
			}
			v, err := judge(cmd.Context(), src, crash.Request{Exercise: args[0], Mode: mode, Seed: seed})
			if err != nil {
				return err
			}
			if chosen := cmp.Or(file, notebook); chosen != "" {
				if v.File, err = filepath.Abs(chosen); err != nil {
					return fmt.Errorf("find the answer again: %w", err)
				}
			}
			if err := exercise.Record(v, src); err != nil {
				fmt.Fprintln(os.Stderr, "crashcourse: the verdict stands, but your progress could not be recorded:", err)
			}
			return printVerdict(cmd, v, asJSON)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "judge this Go `file`")
	cmd.Flags().StringVarP(&notebook, "notebook", "n", "", "judge the graded cell of this `notebook`")
	cmd.Flags().BoolVar(&quick, "quick", false, "one point for each state that a crash can leave behind (the default)")
	cmd.Flags().BoolVar(&full, "full", false, "every point, and a second crash during each recovery")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the verdict as JSON")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "repeat the data of an earlier verdict")
	return cmd
}

// oneExercise accepts the id of an exercise that exists.
func oneExercise(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s takes the id of one exercise, such as outbox/relay", cmd.CommandPath())
	}
	pattern, name, ok := strings.Cut(args[0], "/")
	if !ok || pattern == "" || name == "" || strings.ContainsAny(args[0], `.\*?[`) || strings.Count(args[0], "/") > 1 {
		return usagef("%q is no exercise; ids look like outbox/relay", args[0])
	}
	if _, err := answers.StarterSource(args[0]); err != nil {
		return usagef("there is no exercise %q: %w", args[0], err)
	}
	return nil
}

// source reads the answer that is meant.
func source(id, file, notebook string) ([]byte, error) {
	switch {
	case file != "":
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, usagef("read the answer: %w", err)
		}
		return b, nil
	case notebook != "":
		b, err := os.ReadFile(notebook)
		if err != nil {
			return nil, usagef("read the notebook: %w", err)
		}
		return answers.FromNotebook(b, id)
	}
	return answers.StarterSource(id)
}

// judge compiles an answer and has it judged, starting servers if none run.
func judge(ctx context.Context, src []byte, r crash.Request) (crash.Verdict, error) {
	opt, err := serverOptions(steps.New(os.Stderr))
	if err != nil {
		return crash.Verdict{}, err
	}
	scratch, err := os.MkdirTemp("", "crashcourse-check-")
	if err != nil {
		return crash.Verdict{}, fmt.Errorf("make a scratch folder: %w", err)
	}
	defer os.RemoveAll(scratch)
	p, err := answers.Build(ctx, r.Exercise, src, scratch)
	if v, ok := notAProgram(r, err); ok {
		return v, nil
	}
	if err != nil {
		return crash.Verdict{}, err
	}
	lease, err := servers.Up(ctx, opt)
	if err != nil {
		return unjudged(r, err), nil
	}
	defer func() {
		if err := release(opt.Log, lease); err != nil {
			fmt.Fprintln(os.Stderr, "crashcourse:", err)
		}
	}()
	r.Program, r.Servers = p, lease.Servers
	show := exercise.NewProgress(os.Stderr)
	v, err := exercise.Judge(ctx, r, show.Show)
	show.End()
	if ctx.Err() != nil {
		return v, ctx.Err()
	}
	if err != nil {
		return unjudged(r, err), nil
	}
	v.Answer, _ = exercise.SourceHash(src, r.Exercise)
	return v, nil
}

// notAProgram makes a failing verdict of an answer that does not compile.
func notAProgram(r crash.Request, err error) (crash.Verdict, bool) {
	var compile *answers.CompileError
	if !errors.As(err, &compile) {
		return crash.Verdict{}, false
	}
	return crash.Verdict{Version: 1, Exercise: r.Exercise, Verdict: crash.Fail, Seed: r.Seed, Mode: string(r.Mode), Error: compile.Error(),
		Invariants: []crash.InvariantResult{}, Points: []crash.PointResult{}}, true
}

func unjudged(r crash.Request, err error) crash.Verdict {
	return crash.Verdict{Version: 1, Exercise: r.Exercise, Verdict: crash.Unjudged, Seed: r.Seed, Mode: string(r.Mode), Error: err.Error(),
		Invariants: []crash.InvariantResult{}, Points: []crash.PointResult{}}
}

// printVerdict prints a verdict and turns it into an exit code.
func printVerdict(cmd *cobra.Command, v crash.Verdict, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("print the verdict: %w", err)
		}
	} else if err := view.Text(cmd.OutOrStdout(), v, view.TextOptions{}); err != nil {
		return fmt.Errorf("print the verdict: %w", err)
	}
	switch v.Verdict {
	case crash.Pass:
		return nil
	case crash.Unjudged:
		return &exitError{code: exitUnjudged}
	}
	return &exitError{code: exitFail}
}

// currentHash is the hash of the answer that stands in a place now, or "".
func currentHash(id string, src []byte) string {
	hash, err := exercise.SourceHash(src, id)
	if err != nil {
		return ""
	}
	return hash
}
