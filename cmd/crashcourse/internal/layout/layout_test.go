// Package layout keeps the imports as docs/architecture.md draws them.
package layout

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers are what there is beside the patterns, from the bottom up. A package
// imports only from lower layers.
var layers = [][]string{
	{"pkg/wire", "pkg/state", "pkg/postgres", "pkg/broker"},
	{"pkg/crash", "pkg/crash/stage", "pkg/servertest"},
	{"pkg/view", "pkg/progress"},
	{"pkg/exercise", "pkg/step"},
	{"pkg/lab"},
	{"pkg/lab/plot"},
}

// base is what a pattern's package may import of ours.
var base = []string{"pkg/postgres", "pkg/broker"}

// shared is below what the patterns have in common, and only they.
const shared = "pkg/internal/"

func layer(path string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, path) })
}

// allowed says whether package from may import package to, both without the
// module's name.
func allowed(from, to string) bool {
	top, rest, _ := strings.Cut(from, "/")
	toTop, _, _ := strings.Cut(to, "/")
	pattern, below, _ := strings.Cut(rest, "/")
	switch {
	case top == "cmd":
		return toTop == "pkg" || toTop == "cmd"
	case top == "exercises":
		return to == "pkg/exercise" || to == "pkg/"+pattern
	case top == "solutions" && below == "": // a judge
		return to == "exercises/"+pattern || to == "pkg/crash" || to == "pkg/crash/stage" || to == "pkg/exercise"
	case top == "solutions": // an answer; attacks build on a right one
		return to == "exercises/"+pattern || strings.HasPrefix(to, "solutions/"+pattern+"/reference/") || to == "pkg/"+pattern || to == "pkg/exercise" || slices.Contains(base, to)
	case strings.HasPrefix(from, "pkg/crash/example/"): // a service: it uses patterns, and knows nothing of who crashes it
		return to == "pkg/outbox" || slices.Contains(base, to)
	case strings.HasPrefix(from, shared):
		return slices.Contains(base, to) || strings.HasPrefix(to, shared)
	case layer(from) < 0: // a pattern
		return slices.Contains(base, to) || strings.HasPrefix(to, shared) || strings.HasPrefix(to, from+"/")
	}
	return layer(to) >= 0 && layer(to) < layer(from)
}

func TestImports(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../../../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	const module = "crashcourse/"
	seen := 0
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		seen++
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, i := range p.Imports {
			if to, ours := strings.CutPrefix(i, module); ours && !allowed(from, to) {
				t.Errorf("%s imports %s, against docs/architecture.md", from, to)
			}
		}
	}
	if seen < 20 {
		t.Errorf("looked at %d packages only", seen)
	}
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"pkg/outbox", "pkg/broker", true},
		{"pkg/outbox", "pkg/crash", false},
		{"pkg/outbox", "pkg/internal/link", true},
		{"pkg/internal/link", "pkg/outbox", false},
		{"pkg/crash", "pkg/internal/link", false},
		{"pkg/crash", "pkg/view", false},
		{"pkg/crash/example/shop", "pkg/outbox", true},
		{"pkg/crash/example/shop", "pkg/crash", false},
		{"pkg/view", "pkg/crash", true},
		{"pkg/crash", "pkg/outbox", false},
		{"solutions/outbox", "solutions/outbox/reference/relay", false},
		{"solutions/outbox/mutants/relay/pop", "pkg/crash", false},
		{"exercises/outbox", "solutions/outbox", false},
		{"cmd/crashcourse", "solutions/outbox", false},
	} {
		if got := allowed(c.from, c.to); got != c.want {
			t.Errorf("%s may import %s: %v", c.from, c.to, got)
		}
	}
}
