package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"crashcourse/cmd/crashcourse/internal/terminal"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/state"
	"crashcourse/pkg/view"
)

func newReplay() *cobra.Command {
	var file, notebook, at, variant, html string
	var asJSON, asText, inTerminal bool
	var seed uint64
	cmd := &cobra.Command{
		Use:   "replay [PATTERN/EXERCISE | VERDICT.json]",
		Short: "Step through the last failing schedule, or run it again",
		Long: `Step through the schedule that broke an invariant, message by message, with the
tables and queues at each step: of the last verdict of an exercise, or of a
verdict that was printed with --json. Without an argument it is the last failing
verdict of all.

It opens in the browser; where there is none, the address is printed. --terminal
steps through it here, with the keys; --text prints it.

With --at or --variant, as the report of a verdict gives them, the schedule is
run again, on the answer that the last verdict was about, or that --file or
--notebook names.`,
		Example: `  crashcourse replay
  crashcourse replay outbox/relay
  crashcourse replay --terminal
  crashcourse replay outbox/relay --text | less
  crashcourse replay outbox/relay --html report.html
  crashcourse replay outbox/relay --file answer.go --seed 7 --at kill@p1.pg1>5`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes one exercise or one file", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			forms := 0
			for _, chosen := range []bool{asJSON, asText, inTerminal, html != ""} {
				if chosen {
					forms++
				}
			}
			if forms > 1 {
				return usagef("--json, --html, --text and --terminal exclude each other")
			}
			if inTerminal {
				if err := needTerminal("use --text, or no flag for the browser"); err != nil {
					return err
				}
			}
			var v crash.Verdict
			var err error
			switch {
			case at != "" || variant != "":
				if len(args) == 0 {
					return usagef("say which exercise to run again")
				}
				if err := oneExercise(cmd, args); err != nil {
					return err
				}
				if _, err := crash.ParseSchedule(at); err != nil {
					return usagef("%w", err)
				}
				src := exercise.LastSource(args[0])
				if file != "" || notebook != "" || len(src) == 0 {
					if src, err = source(args[0], file, notebook); err != nil {
						return err
					}
				}
				if v, err = judge(cmd.Context(), src, crash.Request{Exercise: args[0], Mode: crash.Quick, Seed: seed, Schedule: at, Variant: variant}); err != nil {
					return err
				}
			default:
				if v, err = recorded(args); err != nil {
					return err
				}
			}
			switch {
			case asJSON:
				return printVerdict(cmd, v, true)
			case html != "":
				return writeReplay(cmd, v, html)
			case asText:
				if err := view.Text(cmd.OutOrStdout(), v, view.TextOptions{Diagram: true}); err != nil {
					return fmt.Errorf("print the replay: %w", err)
				}
				return nil
			case inTerminal:
				return terminal.Run(cmd.Context(), terminal.New(exercise.Recording(v)), os.Stdin, os.Stdout)
			}
			return viewReplay(cmd, v)
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "run this `schedule` again, such as kill@p1.pg1>5")
	cmd.Flags().StringVar(&variant, "variant", "", "run this `variant` of the starting state again")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "the verdict's seed")
	cmd.Flags().StringVarP(&file, "file", "f", "", "run this Go `file`")
	cmd.Flags().StringVarP(&notebook, "notebook", "n", "", "run the graded cell of this `notebook`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the verdict as JSON")
	cmd.Flags().BoolVar(&asText, "text", false, "print it as text")
	cmd.Flags().BoolVar(&inTerminal, "terminal", false, "step through it in this terminal")
	cmd.Flags().StringVar(&html, "html", "", "write the report as a web page to this `file`")
	return cmd
}

// recorded finds the verdict to show.
func recorded(args []string) (crash.Verdict, error) {
	if len(args) == 1 {
		if strings.HasSuffix(args[0], ".json") {
			b, err := os.ReadFile(args[0])
			if err != nil {
				return crash.Verdict{}, usagef("read the verdict: %w", err)
			}
			return exercise.ReadVerdict(b)
		}
		return exercise.LastVerdict(args[0])
	}
	dir, err := state.Dir()
	if err != nil {
		return crash.Verdict{}, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "verdicts", "*.json"))
	if err != nil {
		return crash.Verdict{}, err
	}
	var newest crash.Verdict
	var when int64
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if v, err := exercise.ReadVerdict(b); err == nil && v.Failure != nil && info.ModTime().UnixNano() > when {
			newest, when = v, info.ModTime().UnixNano()
		}
	}
	if when == 0 {
		return newest, errors.New("there is no failing verdict to replay: judge an answer first, with `crashcourse check outbox/relay` or in a notebook")
	}
	return newest, nil
}

// viewReplay makes a page of the failing run, and opens it where there is a
// browser.
func viewReplay(cmd *cobra.Command, v crash.Verdict) error {
	page, err := view.RecordedPage(exercise.Recording(v))
	if err != nil {
		return fmt.Errorf("draw the run: %w", err)
	}
	dir, err := state.Dir()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "replay.html")
	if err := state.WriteFile(path, []byte(page), 0o600); err != nil {
		return err
	}
	at := url.URL{Scheme: "file", Path: path}
	cmd.Printf("Open this in a browser: %s\n", at.String())
	openBrowser(false, at.String())
	return nil
}

// writeReplay writes the report into a file.
func writeReplay(cmd *cobra.Command, v crash.Verdict, path string) error {
	page, err := view.Document(v)
	if err != nil {
		return fmt.Errorf("draw the report: %w", err)
	}
	if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	cmd.Printf("Written to %s.\n", path)
	return nil
}
