package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"crashcourse/cmd/crashcourse/internal/answers"
	"crashcourse/cmd/crashcourse/internal/servers"
	"crashcourse/cmd/crashcourse/internal/steps"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/state"
)

func newVerify() *cobra.Command {
	var o verifyOptions
	var faults []string
	cmd := &cobra.Command{
		Use:   "verify [PATTERN…]",
		Short: "Judge the judge: right answers pass, wrong ones fail for the right reason",
		Long: `Judge every answer that the repository holds. References and alternatives must
pass. Mutants must fail on the invariant that they say they break. Starter
answers must fail as not implemented. Attacks must not pass. One answer that does
otherwise fails the whole. Mutants marked "Mode: full" are never judged in less.`,
		Example: `  crashcourse verify outbox
  crashcourse verify outbox --repeat 10 --load
  crashcourse verify outbox --only relay/reference --repeat 100
  crashcourse verify --json
  crashcourse verify outbox --whole --verdicts /tmp/verdicts`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				var err error
				if args, err = answers.Patterns(); err != nil {
					return err
				}
			}
			switch o.mode {
			case "quick", "full", "unpruned":
			default:
				return usagef("--mode is quick, full or unpruned, not %q", o.mode)
			}
			for _, f := range faults {
				kind, err := crash.ParseFault(f)
				if err != nil {
					return usagef("--faults: %w", err)
				}
				o.faults = append(o.faults, kind)
			}
			return verify(cmd, args, o)
		},
	}
	cmd.Flags().IntVar(&o.repeat, "repeat", 1, "judge each answer so many `times`")
	cmd.Flags().BoolVar(&o.load, "load", false, "keep every CPU busy meanwhile")
	cmd.Flags().StringVar(&o.only, "only", "", "only answers whose name contains this `text`, such as relay/mutant or relay/reference")
	cmd.Flags().StringVar(&o.mode, "mode", "quick", "quick, full or unpruned")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the results as JSON")
	cmd.Flags().BoolVar(&o.whole, "whole", false, "try every point, also after the invariant broke")
	cmd.Flags().StringSliceVar(&faults, "faults", nil, "only these `kinds`, such as kill,cut, and no variants")
	cmd.Flags().StringVar(&o.verdicts, "verdicts", "", "write each verdict into this `folder`, as JSON")
	cmd.Flags().IntVar(&o.parallel, "parallel", 2, "answers judged at once")
	return cmd
}

type verifyOptions struct {
	repeat, parallel int
	load, json       bool
	only, mode       string
	whole            bool
	faults           []crash.Fault
	verdicts         string // a folder
}

// verified is what came of one answer.
type verified struct {
	answers.Answer
	OK      bool     `json:"ok"`
	Said    string   `json:"said"`    // the verdict, and what broke
	Wrong   string   `json:"wrong"`   // what was wrong with it
	Runs    int      `json:"runs"`    // crash runs of the last time
	Reached float64  `json:"reached"` // share of the points that were reached, at worst
	Seconds float64  `json:"seconds"` // at worst
	Kinds   []string `json:"kinds"`   // fault kinds that showed something
}

func (v verified) id() string {
	_, name, _ := strings.Cut(v.Exercise, "/")
	return name + "/" + string(v.Kind) + "/" + v.Name
}

func verify(cmd *cobra.Command, patterns []string, o verifyOptions) error {
	ctx := cmd.Context()
	opt, err := serverOptions(steps.New(os.Stderr))
	if err != nil {
		return err
	}
	var list []answers.Answer
	for _, p := range patterns {
		found, err := answers.Find(p)
		if err != nil {
			return usagef("%w", err)
		}
		list = append(list, found...)
	}
	list = slices.DeleteFunc(list, func(a answers.Answer) bool { return !strings.Contains(verified{Answer: a}.id(), o.only) })
	if len(list) == 0 {
		return usagef("no answer's name contains %q", o.only)
	}
	lease, err := servers.Up(ctx, opt)
	if err != nil {
		return &exitError{exitUnjudged, err}
	}
	defer func() {
		if err := release(opt.Log, lease); err != nil {
			fmt.Fprintln(os.Stderr, "crashcourse:", err)
		}
	}()
	scratch, err := os.MkdirTemp("", "crashcourse-verify-")
	if err != nil {
		return fmt.Errorf("make a scratch folder: %w", err)
	}
	defer os.RemoveAll(scratch)
	fmt.Fprintf(os.Stderr, "Building %d answers…\n", len(list))
	programs, err := answers.BuildAll(ctx, list, scratch)
	if err != nil {
		return err
	}
	for _, p := range patterns {
		if _, _, err := exercise.JudgeBinary(ctx, p, nil); err != nil {
			return err
		}
	}
	if o.load {
		loadCtx, stop := context.WithCancel(ctx)
		defer stop()
		burn(loadCtx)
	}

	results := make([]verified, len(list))
	var mu sync.Mutex
	done := 0
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, o.parallel))
	for i, a := range list {
		g.Go(func() error {
			v, err := verifyOne(gctx, a, programs[i], lease.Servers, o)
			if err != nil {
				return err
			}
			results[i] = v
			mu.Lock()
			defer mu.Unlock()
			done++
			mark := "ok   "
			if !v.OK {
				mark = "WRONG"
			}
			fmt.Fprintf(os.Stderr, "%s %3d/%d  %-46s %4.1f s  %s %s\n", mark, done, len(list), v.id(), v.Seconds, v.Said, v.Wrong)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return reportVerified(cmd, results, o)
}

// verifyOne judges one answer as often as asked.
func verifyOne(ctx context.Context, a answers.Answer, p crash.Program, s state.Servers, o verifyOptions) (verified, error) {
	out := verified{Answer: a, OK: true, Reached: 1}
	r := crash.Request{Exercise: a.Exercise, Program: p, Servers: s, Mode: crash.Mode(o.mode), Until: a.Breaks,
		Faults: o.faults, Workers: max(1, 2*runtime.NumCPU()/max(1, o.parallel))}
	if a.Slow && r.Mode == crash.Quick {
		r.Mode = crash.Full
	}
	if o.whole {
		r.Until, r.Whole, r.Budget = "", true, time.Hour
	}
	for n := range o.repeat {
		began := time.Now()
		phases := newPhases()
		r.Seed = uint64(n + 1)
		v, err := exercise.Judge(ctx, r, phases.progress)
		if err != nil {
			return out, fmt.Errorf("judge %s: %w", out.id(), err)
		}
		out.Seconds = max(out.Seconds, time.Since(began).Seconds())
		if o.verdicts != "" {
			if err := keepVerdict(o.verdicts, out, v, phases.end()); err != nil {
				return out, err
			}
		}
		out.Runs = v.Runs
		broken := brokenIn(v)
		out.Said = v.Verdict
		if len(broken) > 0 && a.Kind != answers.Starter {
			out.Said += " " + strings.Join(broken, ", ")
		}
		unreached := 0
		for _, pt := range v.Points {
			if pt.Outcome == crash.Unreached {
				unreached++
			}
			if pt.Violation != "" {
				kind := pt.Fault
				if kind == "" {
					kind = "none"
				}
				if !slices.Contains(out.Kinds, kind) {
					out.Kinds = append(out.Kinds, kind)
				}
			}
		}
		if len(v.Points) > 0 {
			out.Reached = min(out.Reached, 1-float64(unreached)/float64(len(v.Points)))
		}
		switch {
		case a.Kind == answers.Attack:
			if v.Verdict == crash.Pass {
				out.Wrong = "an attack must not pass"
			}
		case v.Verdict == crash.Unjudged:
			out.Wrong = "could not be judged: " + v.Error
		case a.Kind == answers.Starter:
			if v.Verdict != crash.Fail || !strings.HasPrefix(v.Error, "not implemented") {
				out.Wrong = "a starter must fail as not implemented"
			}
		case a.Kind == answers.Mutant:
			if v.Verdict != crash.Fail || !slices.Contains(broken, a.Breaks) {
				out.Wrong = "must fail on " + a.Breaks
			}
		default:
			if v.Verdict != crash.Pass {
				out.Wrong = "must pass"
				if v.Failure != nil {
					out.Wrong += ", but: " + strings.Join(v.Failure.Story, " ") + " Seed " + fmt.Sprint(v.Seed)
				}
			} else if out.Reached < 0.95 {
				out.Wrong = fmt.Sprintf("only %.0f%% of its points were reached", 100*out.Reached)
			}
		}
		if out.Wrong != "" {
			out.OK = false
			return out, nil
		}
	}
	return out, nil
}

func brokenIn(v crash.Verdict) []string {
	var out []string
	for _, i := range v.Invariants {
		if !i.Held {
			out = append(out, i.Name)
		}
	}
	return out
}

// burn keeps every CPU busy until ctx ends.
func burn(ctx context.Context) {
	for range runtime.NumCPU() {
		go func() {
			for x := 1; ctx.Err() == nil; {
				for range 1 << 16 {
					x = x*1664525 + 1013904223
				}
			}
		}()
	}
}

func reportVerified(cmd *cobra.Command, results []verified, o verifyOptions) error {
	wrong := 0
	for _, r := range results {
		if !r.OK {
			wrong++
		}
	}
	if o.json {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		if err := enc.Encode(results); err != nil {
			return fmt.Errorf("print the results: %w", err)
		}
	} else {
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ANSWER\tVERDICT\tSHOWN BY\tRUNS\tREACHED\tSECONDS")
		for _, r := range results {
			mark := ""
			if !r.OK {
				mark = "  WRONG: " + r.Wrong
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.0f%%\t%.1f%s\n", r.id(), r.Said, strings.Join(r.Kinds, " "), r.Runs, 100*r.Reached, r.Seconds, mark)
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("print the results: %w", err)
		}
		cmd.Printf("\n%d answers, judged %d times each: %d as they should be, %d not.\n", len(results), o.repeat, len(results)-wrong, wrong)
	}
	if wrong > 0 {
		return &exitError{code: exitFail}
	}
	return nil
}
