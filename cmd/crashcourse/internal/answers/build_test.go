package answers

import (
	"errors"
	"strings"
	"testing"

	"crashcourse/pkg/exercise"
)

const placeBody = `
func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error { return nil }
`

const placeImports = `
import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/exercises/outbox"
)
`

func TestAcceptedSources(t *testing.T) {
	for name, src := range map[string]string{
		"any package":  "package main" + placeImports + placeBody + "\nfunc main() {}\n",
		"test package": "package outbox_test" + placeImports + placeBody,
		"a comment first": "// A word about /* it */ all.\n\n/* more */ package /* odd */ thing // here\n" +
			placeImports + placeBody,
	} {
		if _, err := Build(t.Context(), "outbox/place", []byte(src), t.TempDir()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheExercisesOwnFileIsAnAnswer(t *testing.T) {
	for _, id := range []string{"outbox/place", "outbox/relay", "outbox/relays"} {
		src, err := StarterSource(id)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Build(t.Context(), id, src, t.TempDir())
		if err != nil {
			t.Errorf("%s: %v", id, err)
		} else if !strings.Contains(strings.Join(p.Env, " "), exercise.RoleEnv+"="+id) {
			t.Errorf("%s: started with %v", id, p.Env)
		}
	}
}

func TestRefusedSources(t *testing.T) {
	for name, c := range map[string]struct{ src, why string }{
		"not Go":          {"place the order", "expected 'package'"},
		"empty":           {"", "expected 'package'"},
		"no function":     {"package a\n", "must declare func Place"},
		"a method":        {"package a\ntype T int\nfunc (T) Place() {}\n", "must declare func Place"},
		"cgo":             {"package a\nimport \"C\"\nfunc Place() {}\n", `"C"`},
		"plugin":          {"package a\nimport _ \"plugin\"\nfunc Place() {}\n", `"plugin"`},
		"the judge":       {"package a\nimport _ \"crashcourse/solutions/outbox\"\nfunc Place() {}\n", "solutions"},
		"the engine":      {"package a\nimport _ \"crashcourse/pkg/crash\"\nfunc Place() {}\n", "pkg/crash"},
		"foreign module":  {"package a\nimport _ \"example.com/x\"\nfunc Place() {}\n", "example.com"},
		"a like name":     {"package a\nimport _ \"github.com/jackc/pgx/v5evil\"\nfunc Place() {}\n", "v5evil"},
		"linkname":        {"package a\nimport _ \"unsafe\"\n//go:linkname x y\nfunc x()\nfunc Place() {}\n", "linkname"},
		"embed":           {"package a\nimport _ \"embed\"\n//go:embed answer.go\nvar s string\nfunc Place() {}\n", "embed"},
		"build tag":       {"//go:build ignore\n\npackage a\nfunc Place() {}\n", "go:build"},
		"wrong signature": {"package a\nfunc Place() {}\n", "cannot use Place"},
		"unused variable": {"package a" + placeImports + "\nfunc Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error { x := 1; return nil }\n", "declared and not used"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Build(t.Context(), "outbox/place", []byte(c.src), t.TempDir())
			var compile *CompileError
			if !errors.As(err, &compile) || !strings.Contains(compile.Output, c.why) {
				t.Errorf("got %v, want a compile error with %q", err, c.why)
			}
			if compile != nil && strings.Contains(compile.Output, t.TempDir()[:5]) {
				t.Errorf("the error names folders of this machine: %s", compile.Output)
			}
		})
	}
}

func TestNotebookCell(t *testing.T) {
	const notebook = `{"cells": [
		{"cell_type": "markdown", "source": "words", "metadata": {}},
		{"cell_type": "code", "metadata": {}, "source": "import (\n\t\"crashcourse/exercises/outbox\"\n\t\"net/http\"\n)\n%%\nfmt.Println(outbox.Order{})"},
		{"cell_type": "code", "metadata": {"nbgrader": {"grade_id": "outbox-place"}}, "source": [
			"%test\n", "// Place …\n", "func Place(ctx context.Context, db *pgxpool.Pool, order outbox.Order) error { return nil }\n", "\n", "func TestPlace(t *testing.T) { outbox.CheckPlace(t, Place) }\n"]}]}`
	src, err := FromNotebook([]byte(notebook), "outbox/place")
	if err != nil {
		t.Fatal(err)
	}
	if s := string(src); strings.Contains(s, "%test") || strings.Contains(s, "TestPlace") || strings.Contains(s, "net/http") {
		t.Errorf("got %s", s)
	}
	if _, err := Build(t.Context(), "outbox/place", src, t.TempDir()); err != nil {
		t.Errorf("%v in\n%s", err, src)
	}
	if _, err := FromNotebook([]byte(notebook), "outbox/relay"); err == nil {
		t.Error("a cell that is not there was found")
	}
	if _, err := FromNotebook([]byte("{"), "outbox/place"); err == nil {
		t.Error("broken JSON was accepted")
	}
}
