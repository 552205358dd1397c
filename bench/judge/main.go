// Judge works out what the judge is worth from verdicts that `crashcourse verify
// --verdicts` has written: which kind of fault shows which mutant, what the
// shortcuts of a sweep cost, how a random kill would have done, where the time
// goes. .ci/worth makes the verdicts, runs it, and so renews docs/judge.md.
//
//	go -C bench run ./judge -verdicts FOLDER -pictures ../docs/pictures -page ../docs/judge.md
//
// The folder has one folder for each way of judging: quick (every point of a
// quick sweep), kills (a kill at every message), unpruned (every fault at every
// message), alone (one verdict at a time).
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"crashcourse/pkg/crash"
)

func main() {
	verdicts := flag.String("verdicts", "", "the folder of verdicts")
	pictures := flag.String("pictures", "", "where the pictures go")
	page := flag.String("page", "", "the page whose measured part is renewed; it is printed otherwise")
	flag.Parse()
	if err := run(*verdicts, *pictures, *page); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}

// judged is a file of `crashcourse verify --verdicts`.
type judged struct {
	Exercise string             `json:"exercise"`
	Kind     string             `json:"kind"`
	Name     string             `json:"name"`
	Breaks   string             `json:"breaks"`
	ShownBy  string             `json:"shown_by"`
	Phases   map[string]float64 `json:"phases"`
	Verdict  crash.Verdict      `json:"verdict"`
}

func (j judged) right() bool { return j.Kind == "reference" || j.Kind == "alternative" }

// short is the exercise without its pattern.
func (j judged) short() string { return j.Exercise[strings.Index(j.Exercise, "/")+1:] }

// read reads a folder of verdicts, by exercise and then by name.
func read(dir string) ([]judged, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there are no verdicts in %s", dir)
	}
	var out []judged
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		var j judged
		if err := json.Unmarshal(b, &j); err != nil {
			return nil, fmt.Errorf("read %s: %w", f, err)
		}
		out = append(out, j)
	}
	return out, nil
}

func of(list []judged, keep func(judged) bool) []judged {
	return slices.DeleteFunc(slices.Clone(list), func(j judged) bool { return !keep(j) })
}

func run(verdicts, pictures, page string) error {
	var all [4][]judged
	for i, name := range []string{"quick", "kills", "unpruned", "alone"} {
		var err error
		if all[i], err = read(filepath.Join(verdicts, name)); err != nil {
			return err
		}
	}
	quick, kills, unpruned, alone := all[0], all[1], all[2], all[3]
	mutant := func(j judged) bool { return j.Kind == "mutant" }
	var text bytes.Buffer
	kinds(&text, of(quick, mutant))
	random(&text, of(kills, mutant), of(quick, mutant))
	shortcuts(&text, of(quick, judged.right), unpruned)
	spent(&text, of(alone, judged.right))
	if pictures != "" {
		if err := draw(pictures, of(quick, mutant), of(kills, mutant)); err != nil {
			return err
		}
	}
	if page == "" {
		_, err := os.Stdout.Write(text.Bytes())
		return err
	}
	return renew(page, text.Bytes())
}

// The measured part of the page stands between these lines.
const (
	begin = "<!-- measured: .ci/worth writes what follows -->\n"
	end   = "<!-- measured: end -->\n"
)

func renew(page string, part []byte) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(old, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no measured part", page)
	}
	return os.WriteFile(page, slices.Concat(before, []byte(begin), part, []byte(end), after), 0o644)
}
