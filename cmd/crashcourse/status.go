package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"crashcourse/cmd/crashcourse/internal/answers"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/progress"
)

func newStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how far you have come, exercise by exercise",
		Long: `Show the last and the best verdict on each exercise. A verdict is stale when
the answer, or the judge, has changed since: judge it again.`,
		Example: `  crashcourse status
  crashcourse status --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, dir, err := folders()
			if err != nil {
				return err
			}
			s, err := gatherStatus(cmd.Context(), root, dir)
			if err != nil {
				return err
			}
			for _, moved := range s.SetAside {
				fmt.Fprintf(os.Stderr, "crashcourse: a progress file was damaged and is now %s\n", moved)
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			return printStatus(cmd, s)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// status is what `status --json` prints.
type status struct {
	Version   int              `json:"version"` // 1
	Exercises []exerciseStatus `json:"exercises"`
	Passed    int              `json:"passed"`
	SetAside  []string         `json:"set_aside,omitempty"` // damaged progress files, under their new names
}

type exerciseStatus struct {
	Exercise string             `json:"exercise"`
	State    string             `json:"state"` // new, pass, fail or stale
	Stale    progress.Staleness `json:"stale"`
	Progress *progress.Exercise `json:"progress,omitempty"` // nil: not tried yet
}

func gatherStatus(ctx context.Context, root, dir string) (status, error) {
	s := status{Version: 1, Exercises: []exerciseStatus{}}
	done, aside, err := progress.Load(dir)
	if err != nil {
		return s, err
	}
	s.SetAside = aside
	known := map[string]*progress.Exercise{}
	var ids []string
	for i := range done {
		known[done[i].Exercise] = &done[i]
		ids = append(ids, done[i].Exercise)
	}
	patterns, err := answers.Patterns()
	if err != nil {
		return s, err
	}
	judges := map[string]string{}
	for _, p := range patterns {
		list, err := answers.Exercises(p)
		if err != nil {
			return s, err
		}
		ids = append(ids, list...)
		// A judge that does not build is an author's affair; its hash stays
		// unknown here.
		if slices.ContainsFunc(list, func(id string) bool { return known[id] != nil }) {
			_, judges[p], _ = exercise.JudgeBinary(ctx, p, nil)
		}
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		e := exerciseStatus{Exercise: id, State: "new", Progress: known[id]}
		if e.Progress != nil {
			pattern, _, _ := strings.Cut(id, "/")
			e.State = e.Progress.Last.Verdict
			if e.Stale = e.Progress.Stale(answerHashes(root, id, e.Progress.Last), judges[pattern]); e.Stale.Any() {
				e.State = "stale"
			}
			if e.Progress.Last.Verdict == crash.Pass && !e.Stale.Any() {
				s.Passed++
			}
		}
		s.Exercises = append(s.Exercises, e)
	}
	return s, ctx.Err()
}

// answerHashes returns the hashes of all the places where an exercise may be
// answered: its file under exercises, its graded cell in a notebook, and the file
// that the learner chose for the last verdict, if any. It returns none when no place
// was written to since that verdict: a notebook that was run need not be saved yet.
func answerHashes(root, id string, last progress.Result) []string {
	notebooks, _ := filepath.Glob(filepath.Join(root, "notebooks", "*.ipynb")) // the pattern is well formed
	places := notebooks
	if last.File != "" {
		places = append(places, last.File)
	}
	var hashes []string
	written := false
	add := func(path string, src []byte, err error) {
		if err != nil {
			return // not answered there
		}
		if h := currentHash(id, src); h != "" {
			hashes = append(hashes, h)
		}
		if info, err := os.Stat(path); err != nil || !info.ModTime().Before(last.At) {
			written = true
		}
	}
	path, src, err := answers.StarterFile(id)
	add(path, src, err)
	for _, path := range places {
		src, err := os.ReadFile(path)
		if err == nil && filepath.Ext(path) == ".ipynb" {
			src, err = answers.FromNotebook(src, id)
		}
		add(path, src, err)
	}
	if !written {
		return nil
	}
	return hashes
}

func printStatus(cmd *cobra.Command, s status) error {
	if len(s.Exercises) == 0 {
		cmd.Println("There are no exercises yet.")
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "EXERCISE\tLAST\tSURVIVED\tBEST\tTRIES\tWHEN\t")
	for _, e := range s.Exercises {
		p := e.Progress
		if p == nil {
			fmt.Fprintf(w, "%s\tnot tried\t\t\t\t\t\n", e.Exercise)
			continue
		}
		var note string
		switch {
		case e.Stale.Answer && e.Stale.Judge:
			note = "stale: answer and judge have changed"
		case e.Stale.Answer:
			note = "stale: the answer has changed"
		case e.Stale.Judge:
			note = "stale: the judge has changed"
		case len(p.Last.Broke) > 0:
			note = "broke " + strings.Join(p.Last.Broke, ", ")
		}
		fmt.Fprintf(w, "%s\t%s\t%d/%d\t%s %.0f%%\t%d\t%s\t%s\n", e.Exercise, p.Last.Verdict, p.Last.Survived, p.Last.Points,
			p.Best.Verdict, 100*p.Best.Score, p.Tries, p.Last.At.Local().Format("2006-01-02 15:04"), note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	cmd.Printf("\n%d of %d passed.\n", s.Passed, len(s.Exercises))
	return nil
}
