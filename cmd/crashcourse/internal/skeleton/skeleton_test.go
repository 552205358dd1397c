package skeleton

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"crashcourse/pkg/state"
)

// checkout copies the repository, so that a pattern can be added to it.
func checkout(t *testing.T) string {
	t.Helper()
	from, err := filepath.Abs("../../../..")
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "pkg", "cmd", "exercises", "solutions", "notebooks"} {
		if out, err := exec.CommandContext(t.Context(), "cp", "-R", filepath.Join(from, name), to).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v %s", name, err, out)
		}
	}
	return to
}

// borrow lends a state folder what takes minutes to install: JupyterLab and the
// kernel. The command is built anew in it.
func borrow(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{"venv", "stamps", "arenas"} {
		if err := os.MkdirAll(filepath.Join(from, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(to, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	tools, err := filepath.Glob(filepath.Join(from, "bin", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range tools {
		if filepath.Base(tool) == "crashcourse" {
			continue
		}
		if err := os.Symlink(tool, filepath.Join(to, "bin", filepath.Base(tool))); err != nil {
			t.Fatal(err)
		}
	}
}

// What `crashcourse new` makes is right as it is: it compiles, its judge judges
// its answers as they should be, and its notebook runs with starters and answers.
func TestWhole(t *testing.T) {
	servers, err := state.LoadServers()
	if err != nil {
		t.Fatalf("This test needs the real servers: %v", err)
	}
	mine, err := state.Dir()
	if err != nil {
		t.Fatal(err)
	}
	command := filepath.Join(mine, "bin", "crashcourse")
	if _, err := os.Stat(command); err != nil {
		t.Fatalf("`make build` first: %v", err)
	}
	root := checkout(t)
	made, err := Make(root, "toy")
	if err != nil {
		t.Fatal(err)
	}
	if len(made) < 12 {
		t.Errorf("made only %q", made)
	}
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := state.SaveServers(dir, servers); err != nil {
		t.Fatal(err)
	}
	borrow(t, mine, dir)
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), state.RootEnv+"="+root, state.DirEnv+"="+dir, "GOFLAGS=-buildvcs=false")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	run("go", "vet", "./pkg/toy", "./exercises/toy", "./solutions/toy/...")
	run("go", "test", "-count=1", "./pkg/toy")
	run(command, "verify", "toy")
	run("go", "test", "-count=1", "-run", "^Test(Starters|Answers)$/_toy", "./cmd/crashcourse/internal/notebooks")
	var unformatted strings.Builder
	cmd := exec.CommandContext(t.Context(), "gofmt", "-l", "pkg/toy", "exercises/toy", "solutions/toy")
	cmd.Dir, cmd.Stdout = root, &unformatted
	if err := cmd.Run(); err != nil || unformatted.Len() > 0 {
		t.Errorf("not formatted: %s (%v)", unformatted.String(), err)
	}
	if _, err := Make(root, "toy"); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("a second time: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, bad := range []string{"", "Inbox", "in-box", "../up", "1st", "a/b"} {
		root := t.TempDir()
		if _, err := Make(root, bad); !errors.Is(err, ErrName) {
			t.Errorf("Make(%q): %v", bad, err)
		}
		if left, _ := os.ReadDir(root); len(left) > 0 {
			t.Errorf("Make(%q) has written something", bad)
		}
	}
}
