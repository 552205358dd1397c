package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"crashcourse/cmd/crashcourse/internal/jupyter"
	"crashcourse/pkg/state"
)

// binary is the command under test.
var binary string

// TestMain is also the program that TestStepCommand steps through.
func TestMain(m *testing.M) {
	if work := os.Getenv(workEnv); work != "" {
		if err := doWork(work); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "cc-command-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "crashcourse")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, ".").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir) // a left-over in the temporary folder does no harm
	os.Exit(code)
}

// command prepares a run of the binary with a state folder of its own and the
// environment's addresses taken out.
func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(binary, args...)
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case state.DirEnv, state.PostgresEnv, state.AMQPEnv, state.ManagementEnv, "DISPLAY", "BROWSER":
		default:
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, state.DirEnv+"="+dir)
	return cmd
}

// withServers gives cmd the addresses of servers that run already.
func withServers(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	s, err := state.LoadServers()
	if err != nil {
		t.Skip(err)
	}
	cmd.Env = append(cmd.Env, state.PostgresEnv+"="+s.Postgres, state.AMQPEnv+"="+s.AMQP, state.ManagementEnv+"="+s.Management)
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return 0
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string // on stderr
	}{
		{[]string{"--help"}, 0, ""},
		{nil, 0, ""},
		{[]string{"nonsense"}, 64, `no command "nonsense"`},
		{[]string{"lab", "--nonsense"}, 64, "unknown flag"},
		{[]string{"lab", "--port", "99999"}, 64, "--port must be"},
		{[]string{"down", "everything"}, 64, "takes no arguments"},
		{[]string{"up", "true"}, 64, "put -- before the command"},
		{[]string{"completion", "bash"}, 0, ""},
		{[]string{"up", "--", "true"}, 0, ""},
		{[]string{"up", "--", "false"}, 1, ""},
		{[]string{"up", "--", "sh", "-c", `test -n "$DATABASE_URL" && test -n "$AMQP_URL" && test -n "$AMQP_MANAGEMENT_URL" && exit 7`}, 7, ""},
		{[]string{"up", "--", "sh", "-c", "kill -KILL $$"}, 137, ""},
		{[]string{"up", "--", "no-such-program"}, 127, "no-such-program"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			cmd := command(t, t.TempDir(), c.args...)
			withServers(t, cmd)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if code := exitCode(t, err); code != c.code {
				t.Errorf("exit code %d, want %d\n%s%s", code, c.code, out, stderr.String())
			}
			if !strings.Contains(stderr.String(), c.says) {
				t.Errorf("stderr %q does not say %q", stderr.String(), c.says)
			}
		})
	}
}

// TestUpEndsTheWholeCommand ends `up` while a child of its command runs.
func TestUpEndsTheWholeCommand(t *testing.T) {
	cmd := command(t, t.TempDir(), "up", "--", "sh", "-c", "sleep 60 & echo $!; wait")
	withServers(t, cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The pipe ends when nobody holds it any more: neither the shell nor sleep.
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd.Wait()); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d", code)
	}
}

func TestDoctorAndStatusJSON(t *testing.T) {
	dir := t.TempDir()
	cmd := command(t, dir, "doctor", "--json")
	withServers(t, cmd)
	out, err := cmd.Output()
	var d diagnosis
	if jerr := json.Unmarshal(out, &d); jerr != nil {
		t.Fatalf("%v: %s", jerr, out)
	}
	if code := exitCode(t, err); (code == 0) != d.OK || d.Servers.Kind != "environment" || len(d.Checks) < 8 {
		t.Errorf("exit code %d, %+v", code, d)
	}

	cmd = command(t, dir, "doctor", "--json")
	cmd.Env = append(cmd.Env, state.PostgresEnv+"=postgres://127.0.0.1:1/x", state.AMQPEnv+"=amqp://127.0.0.1:1/")
	out, err = cmd.Output()
	if jerr := json.Unmarshal(out, &d); jerr != nil {
		t.Fatalf("%v: %s", jerr, out)
	}
	if code := exitCode(t, err); code != 1 || d.OK {
		t.Errorf("with unreachable servers: exit code %d, ok %v", code, d.OK)
	}
	for _, c := range d.Checks {
		if c.Status == "problem" && c.Fix == "" {
			t.Errorf("%s: a problem without a fix: %s", c.Name, c.Found)
		}
	}

	damaged := filepath.Join(dir, "progress", "outbox-relay.json")
	if err := os.MkdirAll(filepath.Dir(damaged), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(damaged, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err = command(t, dir, "status", "--json").Output()
	var s status
	if jerr := json.Unmarshal(out, &s); jerr != nil || exitCode(t, err) != 0 {
		t.Fatalf("%v, %v: %s", err, jerr, out)
	}
	if len(s.SetAside) != 1 {
		t.Errorf("set aside: %v", s.SetAside)
	}
}

// TestNoPython runs the set-up where there is neither Python nor uv.
func TestNoPython(t *testing.T) {
	path := t.TempDir()
	goBinary, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(goBinary, filepath.Join(path, "go")); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, t.TempDir(), "lab", "--prepare")
	cmd.Env = append(cmd.Env, "PATH="+path)
	out, err := cmd.CombinedOutput()
	if code := exitCode(t, err); code != 1 || !strings.Contains(string(out), "there is no Python") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// labRun is a running `crashcourse lab`.
type labRun struct {
	cmd  *exec.Cmd
	url  string
	took time.Duration
}

func startLab(t *testing.T, dir string) *labRun {
	t.Helper()
	cmd := command(t, dir, "lab", "--no-browser")
	withServers(t, cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, unless the test failed
		_ = cmd.Wait()
	})
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if line := strings.TrimSpace(sc.Text()); strings.HasPrefix(line, "http://") && strings.Contains(line, "token=") {
			go io.Copy(io.Discard, out) //nolint:errcheck // keeps the pipe from filling
			return &labRun{cmd, line, time.Since(begin)}
		}
	}
	t.Fatalf("the lab printed no address: %v\n%s", cmd.Wait(), stderr.String())
	return nil
}

func (l *labRun) get(path string) (string, error) {
	u, err := url.Parse(l.url)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+u.Host+path+"?token="+u.Query().Get("token"), nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return string(b), err
}

// gone waits until nobody answers at the lab's address.
func (l *labRun) gone(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var refused *url.Error
		if _, err := l.get("/api"); errors.As(err, &refused) {
			return
		}
	}
	t.Error("JupyterLab still answers")
}

// TestLab needs a set-up JupyterLab, which takes minutes to make; it borrows
// that of the repository.
func TestLab(t *testing.T) {
	home, err := state.Dir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(home, "stamps", "python")); err != nil {
		t.Skip("JupyterLab is not set up: run `crashcourse lab --prepare`")
	}
	dir := t.TempDir()
	for _, name := range []string{"venv", "bin", "stamps"} {
		if err := os.Symlink(filepath.Join(home, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}

	l := startLab(t, dir)
	t.Logf("%s to JupyterLab", l.took)
	if page, err := l.get("/lab"); err != nil || !strings.Contains(page, "jupyter-config-data") {
		t.Errorf("the page: %v", err)
	}
	if specs, err := l.get("/api/kernelspecs"); err != nil || !strings.Contains(specs, jupyter.KernelName) || !strings.Contains(specs, "Go (Crash Course)") {
		t.Errorf("the kernel is not offered: %v, %s", err, specs)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", jupyterPID(t, dir)))
	if err == nil && (bytes.Contains(env, []byte(state.PostgresEnv+"=")) || bytes.Contains(env, []byte(state.AMQPEnv+"="))) {
		t.Error("JupyterLab has the servers' addresses in its environment")
	}
	if s, err := state.LoadServersFile(dir); err != nil || s.Kind != "environment" {
		t.Errorf("cells do not find the servers: %v, %v", s.Kind, err)
	}
	out, err := command(t, dir, "lab", "--no-browser").CombinedOutput()
	if err != nil || !strings.Contains(string(out), l.url) {
		t.Errorf("a second lab: %v, %s", err, out)
	}

	// Ctrl-C.
	if err := l.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, l.cmd.Wait()); code != 0 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
	l.gone(t)

	// Killed at the worst moment: nothing blocks the next one, which has the
	// same address.
	killed := startLab(t, dir)
	if err := killed.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = killed.cmd.Wait() // killed, as asked
	next := startLab(t, dir)
	if next.url != l.url {
		t.Errorf("the address has changed from %s to %s", l.url, next.url)
	}
	if err := next.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = next.cmd.Wait() // seen by gone
	next.gone(t)
}

func jupyterPID(t *testing.T, dir string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "jupyter", "runtime", "jpserver-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	var s struct {
		PID int `json:"pid"`
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s.PID
}
