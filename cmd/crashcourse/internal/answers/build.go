// Package answers finds answers to exercises and makes programs of them that a
// judge can run: from a source file, from a notebook's graded cell, and from the
// references, alternatives and mutants under solutions.
package answers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/state"
)

// CompileError says that an answer is no program. It is the learner's to mend,
// so it makes a failing verdict and not a failing command.
type CompileError struct{ Output string }

func (e *CompileError) Error() string { return "the answer does not compile:\n" + e.Output }

// allowed are the modules that an answer may import from, beside the standard
// library.
var allowed = []string{
	"github.com/jackc/pgx/v5", "github.com/jackc/pglogrepl", "github.com/rabbitmq/amqp091-go", "github.com/google/uuid",
	"github.com/sony/gobreaker/v2", "golang.org/x/sync", "crashcourse/exercises",
	"crashcourse/pkg/exercise", "crashcourse/pkg/outbox", "crashcourse/pkg/inbox", "crashcourse/pkg/breaker", "crashcourse/pkg/postgres", "crashcourse/pkg/broker",
}

// Build compiles the source of an answer to the exercise id, in any package, and
// returns the program. The source may also be a copy of the exercise's own file,
// with the answer filled in. The binary goes into dir. An answer that is no
// valid program makes a [*CompileError].
func Build(ctx context.Context, id string, source []byte, dir string) (crash.Program, error) {
	parsed, err := vetSource(id, source)
	if err != nil {
		return crash.Program{}, err
	}
	pattern, _, _ := strings.Cut(id, "/")
	root, err := state.Root()
	if err != nil {
		return crash.Program{}, err
	}
	files := map[string][]byte{}
	from := ""
	if parsed.declares["Check"+exercise.FuncName(id)] {
		original, _, err := StarterFile(id)
		if err != nil {
			return crash.Program{}, err
		}
		files[original] = parsed.in(pattern)
		files[filepath.Join(root, virtual, "doc.go")] = []byte("package answer\n")
		from = "contract."
	} else {
		files[filepath.Join(root, virtual, "answer.go")] = parsed.in("answer")
	}
	files[filepath.Join(root, virtual, "answer_test.go")] = fmt.Appendf(nil, `package answer

import (
	"testing"

	contract "crashcourse/exercises/%s"
)

func TestAnswer(t *testing.T) { contract.Check%[2]s(t, %[3]s%[2]s) }
`, pattern, exercise.FuncName(id), from)
	binary, err := compile(ctx, dir, files)
	if err != nil {
		return crash.Program{}, err
	}
	return exercise.TestProgram(binary, id, "TestAnswer"), nil
}

// virtual is the folder, below the repository's root, of the package that is
// compiled. It exists for the go command's eyes only.
const virtual = "internal/answer"

// parsed is an answer's source that may be compiled.
type parsed struct {
	source   []byte
	name     [2]int          // where the package's name stands
	declares map[string]bool // functions
}

// in returns the source as a file of another package.
func (p parsed) in(name string) []byte {
	return slices.Concat(p.source[:p.name[0]], []byte(name), p.source[p.name[1]:])
}

// vetSource refuses what an answer must not contain.
func vetSource(id string, source []byte) (parsed, error) {
	p := parsed{source: source, declares: map[string]bool{}}
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, "answer.go", source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return p, &CompileError{Output: err.Error()}
	}
	for _, i := range f.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		if !mayImport(path) {
			return p, &CompileError{Output: fmt.Sprintf("%s: an answer may not import %q; it may import the standard library, %s",
				files.Position(i.Pos()), path, strings.Join(allowed, ", "))}
		}
	}
	for _, g := range f.Comments {
		for _, c := range g.List {
			for _, d := range []string{"//go:linkname", "//go:embed", "//go:cgo_", "//go:build", "// +build"} {
				if strings.HasPrefix(c.Text, d) {
					return p, &CompileError{Output: fmt.Sprintf("%s: an answer may not use %s", files.Position(c.Pos()), d)}
				}
			}
		}
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
			p.declares[fn.Name.Name] = true
		}
	}
	if want := exercise.FuncName(id); !p.declares[want] {
		return p, &CompileError{Output: fmt.Sprintf("the answer to %s must declare func %s", id, want)}
	}
	p.name = [2]int{files.Position(f.Name.Pos()).Offset, files.Position(f.Name.End()).Offset}
	return p, nil
}

func mayImport(path string) bool {
	if path == "C" || path == "plugin" || strings.HasPrefix(path, "runtime/cgo") {
		return false
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") && first != "crashcourse" {
		return true // the standard library
	}
	return slices.ContainsFunc(allowed, func(a string) bool { return path == a || strings.HasPrefix(path, a+"/") })
}

// compile makes a test binary of the virtual package, with files in place of
// those on disk. So it builds with the repository's modules, and nothing is
// written there.
func compile(ctx context.Context, dir string, files map[string][]byte) (string, error) {
	root, err := state.Root()
	if err != nil {
		return "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for path, content := range files {
		real := filepath.Join(dir, fmt.Sprintf("%d-%s", len(overlay.Replace), filepath.Base(path)))
		if err := os.WriteFile(real, content, 0o600); err != nil {
			return "", fmt.Errorf("answers: write the source: %w", err)
		}
		overlay.Replace[path] = real
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		return "", fmt.Errorf("answers: write the overlay: %w", err)
	}
	binary := filepath.Join(dir, "answer.test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", list, "-o", binary, "./"+virtual)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly -buildvcs=false", "GOWORK=off", "GOENV=off", "GOTOOLCHAIN=local", "GOPROXY=off", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", fmt.Errorf("answers: build: %w", ctx.Err())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", &CompileError{Output: tidy(out, dir, filepath.Join(root, virtual), root)}
	}
	if err != nil {
		return "", fmt.Errorf("answers: run the go command: %w", err)
	}
	return binary, nil
}

// tidy takes the places of this machine out of the compiler's words.
func tidy(out []byte, places ...string) string {
	for _, p := range places {
		out = bytes.ReplaceAll(out, []byte(p+string(filepath.Separator)), nil)
	}
	out = bytes.ReplaceAll(out, []byte(virtual+"/"), nil)
	const most = 8 << 10
	if len(out) > most {
		out = append(out[:most:most], "\n…"...)
	}
	return strings.TrimSpace(string(out))
}
