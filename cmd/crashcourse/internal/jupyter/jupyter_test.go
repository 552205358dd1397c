package jupyter

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crashcourse/pkg/state"
)

func TestEnvironTakesTheServersOut(t *testing.T) {
	opt := Options{Root: "/root/of/it", State: "/state"}
	env := Environ(opt, []string{"A=b", "DATABASE_URL=postgres://u:secret@h/d", "AMQP_URL=amqp://u:secret@h/", "AMQP_MANAGEMENT_URL=http://u:secret@h", "PYTHONPATH=/x"})
	all := strings.Join(env, "\n")
	for _, gone := range []string{"secret", "PYTHONPATH", state.PostgresEnv} {
		if strings.Contains(all, gone) {
			t.Errorf("%s is in the environment", gone)
		}
	}
	for _, there := range []string{"A=b", state.RootEnv + "=/root/of/it", state.DirEnv + "=/state", "JUPYTER_DATA_DIR=/state/jupyter/data"} {
		if !slices.Contains(env, there) {
			t.Errorf("%s is missing", there)
		}
	}
}

func TestSettings(t *testing.T) {
	opt := Options{Root: t.TempDir(), State: t.TempDir()}
	if err := writeSettings(opt); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(opt.path("jupyter/data/kernels", KernelName, "kernel.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s spec
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if s.DisplayName != "Go (Crash Course)" || s.InterruptMode != "signal" || !slices.Contains(s.Argv, "{connection_file}") || s.Argv[0] != opt.path("bin/crashcourse") {
		t.Errorf("the kernelspec is %+v", s)
	}
	if strings.Contains(string(b), "://") {
		t.Error("the kernelspec holds an address")
	}
	b, err = os.ReadFile(opt.path("venv/share/jupyter/lab/settings/overrides.json"))
	if err != nil || !strings.Contains(string(b), `"fetchNews": "false"`) || !strings.Contains(string(b), `"recordTiming": true`) {
		t.Errorf("overrides.json: %v, %s", err, b)
	}
}

func TestStamps(t *testing.T) {
	opt := Options{State: t.TempDir()}
	if opt.fresh("x", "1") {
		t.Error("fresh before there is a stamp")
	}
	if err := opt.stamp("x", "1"); err != nil {
		t.Fatal(err)
	}
	if !opt.fresh("x", "1") || opt.fresh("x", "2") {
		t.Error("the stamp does not tell 1 from 2")
	}
}

func TestSweepLeavesTheLiving(t *testing.T) {
	opt := Options{State: t.TempDir()}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(opt.kernelTemp(), fmt.Sprint(os.Getpid()))
	left := filepath.Join(opt.kernelTemp(), fmt.Sprint(dead.Process.Pid))
	for _, dir := range []string{mine, left} {
		if err := os.MkdirAll(filepath.Join(dir, "gonb_1"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sweep(opt)
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("a running kernel's folder: %v", err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of a kernel that is gone: %v", err)
	}
}

func TestSocketsFitBelowLongPaths(t *testing.T) {
	for _, dir := range []string{"/s", "/" + strings.Repeat("long/", 30)} {
		socket := filepath.Join(Options{State: dir}.kernelTemp(), "4194304/gonb_01234567/gopls_socket")
		if len(socket) > 104 {
			t.Errorf("%s has %d bytes", socket, len(socket))
		}
	}
}

// TestLookPython looks among fakes.
func TestLookPython(t *testing.T) {
	for _, c := range []struct{ name, says, want string }{
		{"good", "3.12.1 True True", ""},
		{"old", "3.8.10 False True", "Python 3.8.10"},
		{"without venv", "3.11.2 True False", "without its venv module"},
		{"broken", "nothing", "there is no Python"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			fake := filepath.Join(dir, "python3")
			if err := os.WriteFile(fake, []byte("#!/bin/sh\necho "+c.says+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir)
			got, err := lookPython(t.Context(), nil)
			if c.want == "" && (err != nil || got != fake) {
				t.Errorf("%q, %v", got, err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v; want it to say %q", err, c.want)
			}
		})
	}
}

func TestLockedListNamesNoHost(t *testing.T) {
	for _, line := range strings.Split(requirements, "\n") {
		if strings.Contains(line, "://") || strings.HasPrefix(line, "--index") {
			t.Errorf("the locked list names a host: %s", line)
		}
	}
	if n, hashes := strings.Count(requirements, "=="), strings.Count(requirements, "--hash=sha256:"); n < 50 || hashes < n {
		t.Errorf("%d packages, %d hashes", n, hashes)
	}
}
