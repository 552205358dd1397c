package answers

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/state"
)

// Kind says what an answer under solutions is there for.
type Kind string

// The kinds of answers.
const (
	Reference   Kind = "reference"
	Alternative Kind = "alternative" // another right design
	Mutant      Kind = "mutant"      // wrong on purpose
	Attack      Kind = "attack"      // goes for the judge instead of the exercise
	Starter     Kind = "starter"     // not written yet
)

// Answer is an answer that the repository holds.
type Answer struct {
	Exercise string `json:"exercise"`
	Kind     Kind   `json:"kind"`
	Name     string `json:"name"`
	File     string `json:"file"`
	Breaks   string `json:"breaks,omitempty"`   // the invariant that a mutant breaks
	ShownBy  string `json:"shown_by,omitempty"` // the fault that shows it
	Slow     bool   `json:"slow,omitempty"`     // only the mode full shows it: it needs a variant that takes long
	source   []byte
}

// Exercises lists the ids of a pattern's exercises: those that have a reference.
func Exercises(pattern string) ([]string, error) {
	root, err := state.Root()
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob(filepath.Join(root, "solutions", pattern, "reference", "*"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range dirs {
		out = append(out, pattern+"/"+filepath.Base(d))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("answers: there is no pattern %q: no references in %s", pattern, filepath.Join("solutions", pattern, "reference"))
	}
	return out, nil
}

// Patterns lists the patterns that have exercises.
func Patterns() ([]string, error) {
	root, err := state.Root()
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob(filepath.Join(root, "solutions", "*", "reference"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range dirs {
		out = append(out, filepath.Base(filepath.Dir(d)))
	}
	return out, nil
}

// StarterSource returns the source of exercise id under exercises: the answer
// that is judged when no other is named.
func StarterSource(id string) ([]byte, error) {
	_, src, err := StarterFile(id)
	return src, err
}

// StarterFile finds the file under exercises that declares the function of id.
func StarterFile(id string) (path string, source []byte, err error) {
	root, err := state.Root()
	if err != nil {
		return "", nil, err
	}
	pattern, _, _ := strings.Cut(id, "/")
	files, err := filepath.Glob(filepath.Join(root, "exercises", pattern, "*.go"))
	if err != nil {
		return "", nil, err
	}
	fn := regexp.MustCompile(`(?m)^func ` + exercise.FuncName(id) + `\(`)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", nil, fmt.Errorf("answers: %w", err)
		}
		if fn.Match(b) && !strings.HasSuffix(f, "_test.go") {
			return f, b, nil
		}
	}
	return "", nil, fmt.Errorf("answers: exercises/%s declares no func %s: is %q an exercise?", pattern, exercise.FuncName(id), id)
}

// Find lists the answers that the repository holds for a pattern.
func Find(pattern string) ([]Answer, error) {
	root, err := state.Root()
	if err != nil {
		return nil, err
	}
	ids, err := Exercises(pattern)
	if err != nil {
		return nil, err
	}
	var out []Answer
	for _, id := range ids {
		_, name, _ := strings.Cut(id, "/")
		out = append(out, Answer{Exercise: id, Kind: Starter, Name: "starter", File: "exercises/" + pattern})
		for _, k := range []struct {
			kind Kind
			glob string
		}{
			{Reference, filepath.Join("reference", name, "*.go")},
			{Alternative, filepath.Join("alternatives", name, "*", "*.go")},
			{Mutant, filepath.Join("mutants", name, "*", "*.go")},
			{Attack, filepath.Join("attacks", name, "*", "*.go")},
		} {
			files, err := filepath.Glob(filepath.Join(root, "solutions", pattern, k.glob))
			if err != nil {
				return nil, err
			}
			for _, f := range files {
				if strings.HasSuffix(f, "_test.go") {
					continue
				}
				src, err := os.ReadFile(f)
				if err != nil {
					return nil, fmt.Errorf("answers: %w", err)
				}
				rel, _ := filepath.Rel(root, f)
				a := Answer{Exercise: id, Kind: k.kind, Name: filepath.Base(filepath.Dir(f)), File: filepath.ToSlash(rel), source: src}
				if k.kind == Mutant {
					if err := a.label(); err != nil {
						return nil, fmt.Errorf("answers: %s: %w", a.File, err)
					}
				}
				out = append(out, a)
			}
		}
	}
	return out, nil
}

// label reads what a mutant says of itself.
func (a *Answer) label() error {
	lines := bufio.NewScanner(bytes.NewReader(a.source))
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "// Breaks: "); ok {
			a.Breaks = strings.TrimSpace(v)
		}
		if v, ok := strings.CutPrefix(lines.Text(), "// Shown by: "); ok {
			a.ShownBy = strings.TrimSpace(v)
		}
		a.Slow = a.Slow || lines.Text() == "// Mode: full"
	}
	if a.Breaks == "" {
		return fmt.Errorf("a mutant must say `// Breaks: <invariant>`")
	}
	return nil
}

// hasInit finds answers that act before they are called.
var hasInit = regexp.MustCompile(`(?m)^func init\(|^var .*= .*\(`)

// BuildAll compiles answers and returns their programs, in the same order. All
// that have no initialiser share one binary, since most of the time is spent in
// the linker. Binaries go into dir.
func BuildAll(ctx context.Context, list []Answer, dir string) ([]crash.Program, error) {
	out := make([]crash.Program, len(list))
	var imports, tests bytes.Buffer
	shared := map[int]string{}
	contracts := map[string]bool{}
	for i, a := range list {
		pattern, _, _ := strings.Cut(a.Exercise, "/")
		fn := exercise.FuncName(a.Exercise)
		switch {
		case a.Kind == Starter:
			shared[i] = fmt.Sprintf("TestAnswer%d", i)
			fmt.Fprintf(&tests, "func TestAnswer%d(t *testing.T) { %s.Check%s(t, %[2]s.%[3]s) }\n", i, pattern, fn)
		case hasInit.Match(a.source):
			sub, err := os.MkdirTemp(dir, "alone-")
			if err != nil {
				return nil, fmt.Errorf("answers: %w", err)
			}
			if out[i], err = Build(ctx, a.Exercise, a.source, sub); err != nil {
				return nil, fmt.Errorf("answers: %s: %w", a.File, err)
			}
			continue
		default:
			shared[i] = fmt.Sprintf("TestAnswer%d", i)
			fmt.Fprintf(&imports, "\ta%d %q\n", i, "crashcourse/"+filepath.ToSlash(filepath.Dir(a.File)))
			fmt.Fprintf(&tests, "func TestAnswer%d(t *testing.T) { %s.Check%s(t, a%[1]d.%[3]s) }\n", i, pattern, fn)
		}
		contracts[pattern] = true
	}
	if len(shared) == 0 {
		return out, nil
	}
	root, err := state.Root()
	if err != nil {
		return nil, err
	}
	patterns := make([]string, 0, len(contracts))
	for p := range contracts {
		patterns = append(patterns, p)
	}
	slices.Sort(patterns)
	for _, p := range patterns {
		fmt.Fprintf(&imports, "\t%s %q\n", p, "crashcourse/exercises/"+p)
	}
	src := fmt.Sprintf("package answer\n\nimport (\n\t\"testing\"\n\n%s)\n\n%s", imports.String(), tests.String())
	sub, err := os.MkdirTemp(dir, "all-")
	if err != nil {
		return nil, fmt.Errorf("answers: %w", err)
	}
	binary, err := compile(ctx, sub, map[string][]byte{
		filepath.Join(root, virtual, "doc.go"):         []byte("package answer\n"),
		filepath.Join(root, virtual, "answer_test.go"): []byte(src),
	})
	if err != nil {
		return nil, err
	}
	for i, test := range shared {
		out[i] = exercise.TestProgram(binary, list[i].Exercise, test)
	}
	return out, nil
}
