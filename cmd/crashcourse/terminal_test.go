package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"github.com/jackc/pgx/v5"
	"golang.org/x/term"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/servertest"
	"crashcourse/pkg/state"
	"crashcourse/pkg/wire"
)

// window is a command in a terminal of its own.
type window struct {
	t      *testing.T
	cmd    *exec.Cmd
	tty    *os.File // its end of the terminal, kept open to look at its settings
	pty    *os.File
	before *term.State

	mu      sync.Mutex
	screen  *vt.Emulator
	raw     bytes.Buffer
	changed chan struct{}
}

func open(t *testing.T, cmd *exec.Cmd, columns, lines uint16) *window {
	t.Helper()
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	w := &window{t: t, cmd: cmd, pty: ours, tty: theirs, screen: vt.NewEmulator(int(columns), int(lines)), changed: make(chan struct{}, 1)}
	if err := pty.Setsize(ours, &pty.Winsize{Cols: columns, Rows: lines}); err != nil {
		t.Fatal(err)
	}
	w.before = w.settings()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go w.answer()
	go w.read()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, unless the test failed
		_ = theirs.Close()
		_ = ours.Close()
		_ = w.screen.Close()
	})
	return w
}

func (w *window) settings() *term.State {
	w.t.Helper()
	s, err := term.GetState(int(w.tty.Fd()))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// answer sends what the terminal answers to questions of the program.
func (w *window) answer() {
	b := make([]byte, 256)
	for {
		n, err := w.screen.Read(b)
		if err != nil {
			return
		}
		if _, err := w.pty.Write(b[:n]); err != nil {
			return
		}
	}
}

func (w *window) read() {
	b := make([]byte, 4096)
	for {
		n, err := w.pty.Read(b)
		w.mu.Lock()
		w.raw.Write(b[:n])
		_, _ = w.screen.Write(b[:n]) // it takes all
		w.mu.Unlock()
		select {
		case w.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (w *window) shown() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.screen.String()
}

var colour = regexp.MustCompile(`\x1b\[([0-9]+;)*[349][0-7][;m]`)

// coloured says whether anything was written in colours.
func (w *window) coloured() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return colour.Match(w.raw.Bytes())
}

func (w *window) press(keys string) {
	w.t.Helper()
	if _, err := w.pty.WriteString(keys); err != nil {
		w.t.Fatal(err)
	}
}

// until waits for the screen to say something, whatever its spacing.
func (w *window) until(what ...string) {
	w.t.Helper()
	late := time.After(60 * time.Second)
	for {
		shown := strings.Join(strings.Fields(w.shown()), " ")
		missing := ""
		for _, s := range what {
			if !strings.Contains(shown, s) {
				missing = s
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-w.changed:
		case <-late:
			w.t.Fatalf("the screen does not say %q:\n%s", missing, w.shown())
		}
	}
}

// ends waits for the command's end, and looks at the terminal it leaves.
func (w *window) ends(code int) {
	w.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- w.cmd.Wait() }()
	select {
	case err := <-ended:
		if got := exitCode(w.t, err); got != code {
			w.t.Errorf("exit code %d, want %d\n%s", got, code, w.shown())
		}
	case <-time.After(60 * time.Second):
		w.t.Fatalf("it does not end:\n%s", w.shown())
	}
	if s := w.settings(); !reflect.DeepEqual(s, w.before) {
		w.t.Errorf("the terminal is left with other settings: %+v, before %+v", s, w.before)
	}
	// What it wrote last may still be on its way to us.
	late := time.After(10 * time.Second)
	for {
		w.mu.Lock()
		alt, hidden := w.screen.IsAltScreen(), w.screen.CursorHidden()
		w.mu.Unlock()
		if !alt && !hidden {
			return
		}
		select {
		case <-w.changed:
		case <-late:
			w.t.Fatalf("the terminal is left without its screen (%v) or its cursor (%v)", alt, hidden)
		}
	}
}

// failing writes a verdict into a file and returns its name.
func failing(t *testing.T) string {
	t.Helper()
	trace := wire.Trace{Version: wire.TraceVersion}
	for i, m := range []wire.Message{
		{Name: "INSERT orders", Effect: wire.Write, Detail: "INSERT INTO orders VALUES ('\x1b[2J')"},
		{Name: "COMMIT", Effect: wire.Commit},
		{Name: "SELECT orders", Fault: "kill"},
	} {
		m.Seq, m.Step, m.Type, m.Point = i+1, true, "Query", wire.Point{Process: 1, Protocol: wire.PG, Conn: 1, Dir: wire.ToServer, Index: i + 1}
		trace.Messages = append(trace.Messages, m)
	}
	v := crash.Verdict{Version: 1, Exercise: "outbox/place", Verdict: crash.Fail, Invariants: []crash.InvariantResult{}, Points: []crash.PointResult{},
		Failure: &crash.Failure{Invariant: "every order ships", At: "p1.pg1>3", Fault: "kill", Detail: "o-1 does not", Trace: &trace,
			Scenes: []crash.Scene{
				{After: 0, Tables: []crash.Table{{Name: "orders", Columns: []string{"id"}}}},
				{After: 2, Tables: []crash.Table{{Name: "orders", Columns: []string{"id"}, Rows: [][]string{{"o-1"}}}}},
			}}}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "verdict.json")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReplayInATerminal(t *testing.T) {
	path := failing(t)
	for _, end := range []string{"q", "\x03"} {
		w := open(t, command(t, t.TempDir(), "replay", path, "--terminal"), 80, 24)
		w.until("Verdict on outbox/place: fail", "before the first of 3", "[table] orders: empty")
		w.press("e")
		w.until("▸ ● 1 process 1 → PostgreSQL INSERT orders", "1 write is not committed yet.", "␛[2J")
		w.press("n")
		w.until("step 2 of 3", "+1 new", "+ o-1")
		if err := pty.Setsize(w.pty, &pty.Winsize{Cols: 40, Rows: 16}); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.screen.Resize(40, 16)
		w.mu.Unlock()
		w.until("process 1→PG COMMIT")
		w.press("b")
		w.until("step 3 of 3", "✗ every order ships broke here")
		w.press("?")
		w.until("Keys", "next message")
		w.press(end)
		w.ends(0)
		if !w.coloured() {
			t.Error("nothing is coloured")
		}
	}
}

func TestNoColour(t *testing.T) {
	cmd := command(t, t.TempDir(), "replay", failing(t), "--terminal")
	cmd.Env = append(cmd.Env, "NO_COLOR=yes")
	w := open(t, cmd, 80, 24)
	w.until("before the first of 3")
	w.press("b")
	w.until("✗ every order ships broke here")
	w.press("q")
	w.ends(0)
	if w.coloured() {
		t.Error("it is coloured in spite of NO_COLOR")
	}
}

func TestEndedBySignal(t *testing.T) {
	w := open(t, command(t, t.TempDir(), "replay", failing(t), "--terminal"), 80, 24)
	w.until("before the first of 3")
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.ends(exitInterrupted)
}

const workEnv, pidsEnv = "STEP_COMMAND_WORK", "STEP_COMMAND_PIDS"

// doWork is what a program of TestStepCommand does.
func doWork(work string) error {
	ctx := context.Background()
	db, err := pgx.Connect(ctx, os.Getenv(state.PostgresEnv))
	if err != nil {
		return err
	}
	if work == "prepare" {
		_, err = db.Exec(ctx, "CREATE TABLE orders (id text)")
		return err
	}
	child := exec.Command("sleep", "300")
	if err := child.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(os.Getenv(pidsEnv), fmt.Append(nil, os.Getpid(), " ", child.Process.Pid), 0o644); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, "INSERT INTO orders VALUES ('o-1')"); err != nil {
		return err
	}
	return child.Wait()
}

// TestStepCommand steps through a program that starts another, and ends it in
// each way there is.
func TestStepCommand(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := state.LoadServers()
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"q", "\x03", "SIGTERM"} {
		at := servertest.New(t)
		pids := filepath.Join(t.TempDir(), "pids")
		cmd := command(t, t.TempDir(), "step", "--prepare", workEnv+"=prepare "+self, "--", self, "now")
		database, err := postgres.URL(admin.Postgres, postgres.Change{Database: at.Name})
		if err != nil {
			t.Fatal(err)
		}
		vhost, err := broker.URL(admin.AMQP, broker.Change{Vhost: at.Name})
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, workEnv+"=place", pidsEnv+"="+pids,
			state.PostgresEnv+"="+database, state.AMQPEnv+"="+vhost, state.ManagementEnv+"="+admin.Management)
		w := open(t, cmd, 80, 24)
		w.until(filepath.Base(self)+" now", "waits for you", "[table] orders: empty")
		w.press("e")
		w.until("INSERT orders from")
		w.press("e")
		w.until("+1 new", "+ o-1")
		if end == "SIGTERM" {
			if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			w.ends(exitInterrupted)
		} else {
			w.press(end)
			w.ends(0)
		}
		b, err := os.ReadFile(pids)
		if err != nil {
			t.Fatal(err)
		}
		if len(strings.Fields(string(b))) != 2 {
			t.Fatalf("the program's processes are %q", b)
		}
		for _, f := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			gone(t, pid)
		}
	}
}

// gone makes sure that a process ends. Of one that was killed the system may
// still have to take notice.
func gone(t *testing.T, pid int) {
	t.Helper()
	for late := time.Now().Add(20 * time.Second); time.Now().Before(late); time.Sleep(20 * time.Millisecond) {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // there may be no /proc
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
	}
	t.Errorf("process %d is left behind", pid)
}

func TestWrongUseOfTheTerminal(t *testing.T) {
	verdict := failing(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"replay", verdict, "--terminal"}, 64, "needs a terminal"},
		{[]string{"replay", verdict, "--terminal", "--text"}, 64, "exclude each other"},
		{[]string{"replay", verdict, "--view"}, 64, "unknown flag"},
		{[]string{"step"}, 64, "which program"},
		{[]string{"step", "true"}, 64, "put -- before the program"},
		{[]string{"step", "--copies", "0", "--", "true"}, 64, "--copies must be from 1 to 8"},
		{[]string{"step", "--", "no-such-program"}, 64, "no-such-program"},
		{[]string{"step", "--", "true"}, 64, "needs a terminal"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			var stderr bytes.Buffer
			cmd := command(t, t.TempDir(), c.args...)
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if code := exitCode(t, err); code != c.code || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("exit code %d, want %d, and %q\n%s%s", code, c.code, c.says, out, stderr.String())
			}
		})
	}

	cmd := command(t, t.TempDir(), "step", "--prepare", "echo no such table; exit 3", "--", "true")
	withServers(t, cmd)
	w := open(t, cmd, 80, 24)
	w.until("the starting state could not be made: the command that makes it ended: exit status 3", "no such table")
	w.ends(1)
}

// TestReplayForms: without a flag it is a page for the browser, whose address is
// printed.
func TestReplayForms(t *testing.T) {
	dir, verdict := t.TempDir(), failing(t)
	out, err := command(t, dir, "replay", verdict).Output()
	if code := exitCode(t, err); code != 0 || !strings.Contains(string(out), "file://"+filepath.Join(dir, "replay.html")) {
		t.Errorf("exit code %d: %s", code, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "replay.html")); err != nil {
		t.Error(err)
	}
	out, err = command(t, dir, "replay", verdict, "--text").Output()
	if code := exitCode(t, err); code != 0 || !strings.Contains(string(out), "every order ships broke") {
		t.Errorf("exit code %d: %s", code, out)
	}
}
