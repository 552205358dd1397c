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
	"crashcourse/pkg/exercise", "crashcourse/pkg/outbox", "crashcourse/pkg/postgres", "crashcourse/pkg/broker",
}

// Build compiles the source of an answer to the exercise id, in any package, and
// returns the program. The binary goes into dir. An answer that is no valid
// program makes a [*CompileError].
func Build(ctx context.Context, id string, source []byte, dir string) (crash.Program, error) {
	renamed, err := vetSource(id, source)
	if err != nil {
		return crash.Program{}, err
	}
	pattern, _, _ := strings.Cut(id, "/")
	test := fmt.Sprintf(`package answer

import (
	"testing"

	contract "crashcourse/exercises/%s"
)

func TestAnswer(t *testing.T) { contract.Check%[2]s(t, %[2]s) }
`, pattern, exercise.FuncName(id))
	binary, err := compile(ctx, dir, map[string][]byte{"answer.go": renamed, "answer_test.go": []byte(test)})
	if err != nil {
		return crash.Program{}, err
	}
	return exercise.TestProgram(binary, id, "TestAnswer"), nil
}

// vetSource refuses what an answer must not contain, and puts the source into
// package answer.
func vetSource(id string, source []byte) ([]byte, error) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, "answer.go", source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, &CompileError{Output: err.Error()}
	}
	for _, i := range f.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		if !mayImport(path) {
			return nil, &CompileError{Output: fmt.Sprintf("%s: an answer may not import %q; it may import the standard library, %s",
				files.Position(i.Pos()), path, strings.Join(allowed, ", "))}
		}
	}
	for _, g := range f.Comments {
		for _, c := range g.List {
			for _, d := range []string{"//go:linkname", "//go:embed", "//go:cgo_", "//go:build", "// +build"} {
				if strings.HasPrefix(c.Text, d) {
					return nil, &CompileError{Output: fmt.Sprintf("%s: an answer may not use %s", files.Position(c.Pos()), d)}
				}
			}
		}
	}
	want := exercise.FuncName(id)
	if !slices.ContainsFunc(f.Decls, func(d ast.Decl) bool {
		fn, ok := d.(*ast.FuncDecl)
		return ok && fn.Recv == nil && fn.Name.Name == want
	}) {
		return nil, &CompileError{Output: fmt.Sprintf("the answer to %s must declare func %s", id, want)}
	}
	start, end := files.Position(f.Name.Pos()).Offset, files.Position(f.Name.End()).Offset
	return slices.Concat(source[:start], []byte("answer"), source[end:]), nil
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

// compile makes a test binary of a package that has just the given files. The
// package lies in the repository for the go command's eyes only, so that it
// builds with the repository's modules and nothing is written there.
func compile(ctx context.Context, dir string, files map[string][]byte) (string, error) {
	root, err := state.Root()
	if err != nil {
		return "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	virtual := filepath.Join(root, "internal", "answer")
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, content := range files {
		real := filepath.Join(dir, name)
		if err := os.WriteFile(real, content, 0o600); err != nil {
			return "", fmt.Errorf("answers: write the source: %w", err)
		}
		overlay.Replace[filepath.Join(virtual, name)] = real
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
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", list, "-o", binary, "./internal/answer")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly -buildvcs=false", "GOWORK=off", "GOENV=off", "GOTOOLCHAIN=local", "GOPROXY=off", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", fmt.Errorf("answers: build: %w", ctx.Err())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", &CompileError{Output: tidy(out, dir, virtual, root)}
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
	out = bytes.ReplaceAll(out, []byte("internal/answer/"), nil)
	const most = 8 << 10
	if len(out) > most {
		out = append(out[:most:most], "\n…"...)
	}
	return strings.TrimSpace(string(out))
}
