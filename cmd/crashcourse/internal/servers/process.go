package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// account is the unprivileged user that a server runs as when we are root.
type account struct {
	name     string
	uid, gid int
}

// serviceAccount returns the first of names that exists, or nobody. Without
// root it returns nil: the servers then run as whoever calls.
func serviceAccount(names ...string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range append(names, "nobody") {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 != nil || err2 != nil || uid == 0 {
			continue
		}
		return &account{name, uid, gid}, nil
	}
	return nil, fmt.Errorf("servers: no unprivileged user to run a server as (looked for %s, nobody): add one with `useradd --system postgres`", strings.Join(names, ", "))
}

// as makes cmd run in a session of its own, out of reach of the terminal's
// Ctrl-C, and as the account.
func (a *account) as(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
}

// own makes dir and gives it to the account, for its eyes only.
func (a *account) own(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	if a == nil {
		return nil
	}
	if err := os.Chown(dir, a.uid, a.gid); err != nil {
		return fmt.Errorf("servers: give %s to user %s: %w", dir, a.name, err)
	}
	return nil
}

// give writes a file that the account owns.
func (a *account) give(path string, content []byte, mode os.FileMode) error {
	// The old one may be read-only, and its name may be a trap: start anew.
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	if err := os.WriteFile(path, content, mode); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	if a != nil {
		if err := os.Lchown(path, a.uid, a.gid); err != nil {
			return fmt.Errorf("servers: give %s to user %s: %w", path, a.name, err)
		}
	}
	return nil
}

// canEnter reports whether the account may pass through to dir.
func (a *account) canEnter(dir string) bool {
	if a == nil {
		return true
	}
	cmd := exec.Command("/bin/sh", "-c", `cd "$0"`, dir)
	a.as(cmd)
	cmd.Dir = "/"
	return cmd.Run() == nil
}

// run executes a short-lived program as the account and returns what it
// printed. When ctx ends, the program and its children are killed.
func (a *account) run(ctx context.Context, dir string, env []string, stdin string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	a.as(cmd)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return string(out), err
}

// daemon is a server process that outlives the call that starts it.
type daemon struct {
	name    string   // as a person says it: PostgreSQL
	dir     string   // its folder, owned by the account
	marker  string   // a text that only its command line has
	account *account // nil: our own user
	exit    <-chan error
}

func (d *daemon) pidFile() string { return filepath.Join(d.dir, "pid") }
func (d *daemon) logFile() string { return filepath.Join(d.dir, "log") }

// pid returns the process id of the running daemon, or 0. A pid file that a
// killed run left behind names no process, or somebody else's: the command
// line tells.
func (d *daemon) pid() int {
	b, err := os.ReadFile(d.pidFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 || !strings.Contains(commandLine(pid), d.marker) {
		return 0
	}
	return pid
}

// start runs argv as a daemon: its own session, its output in the log file.
func (d *daemon) start(env []string, argv ...string) error {
	if err := d.account.give(d.logFile(), nil, 0o600); err != nil {
		return err
	}
	if err := d.account.give(d.pidFile(), nil, 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(d.logFile(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	defer log.Close()
	// The shell writes the pid before it becomes the server, so that not even
	// a kill of this process at the worst moment leaves a server unknown.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `echo $$ >"$0" && exec "$@"`, d.pidFile()}, argv...)...)
	d.account.as(cmd)
	cmd.Dir, cmd.Env = d.dir, env
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("servers: start %s: %w", d.name, err)
	}
	exit := make(chan error, 1)
	go func() { exit <- cmd.Wait() }()
	d.exit = exit
	return nil
}

// errExited says that a daemon ended while it was being waited for.
var errExited = errors.New("ended while it started")

// await calls ready until it returns nil, the daemon ends, or ctx is over.
func (d *daemon) await(ctx context.Context, patience time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for {
		if last = ready(ctx); last == nil {
			return nil
		}
		select {
		case err := <-d.exit:
			if err == nil {
				err = errors.New("exit status 0")
			}
			return fmt.Errorf("servers: %s %w (%v): %s", d.name, errExited, err, d.lastWords())
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("servers: %s does not answer after %s (%v): see %s", d.name, patience, last, d.logFile())
			}
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends the daemon with the first signal, and with SIGKILL when it has
// not gone after patience. It reports whether there was one to stop.
func (d *daemon) stop(ctx context.Context, sig syscall.Signal, patience time.Duration) (bool, error) {
	pid := d.pid()
	if pid == 0 {
		return false, d.forget()
	}
	gone := func() bool { return !strings.Contains(commandLine(pid), d.marker) }
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return false, fmt.Errorf("servers: stop %s (process %d): %w", d.name, pid, err)
	}
	kill := time.After(patience)
	for !gone() {
		select {
		case <-kill:
			// The group: whatever the server itself had started goes too.
			_ = syscall.Kill(-pid, syscall.SIGKILL) // it may have gone just now
			_ = syscall.Kill(pid, syscall.SIGKILL)
			kill = nil
		case <-ctx.Done():
			return false, fmt.Errorf("servers: stop %s (process %d): %w", d.name, pid, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return true, d.forget()
}

func (d *daemon) forget() error {
	if err := os.Remove(d.pidFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("servers: %w", err)
	}
	return nil
}

// lastWords returns the line of the log that most likely says why it ended.
func (d *daemon) lastWords() string {
	b, err := os.ReadFile(d.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	words := lines[len(lines)-1]
	for _, line := range lines {
		for _, sign := range []string{"FATAL", "PANIC", "ERROR:", "[error]", "BOOT FAILED", "No space left"} {
			if strings.Contains(line, sign) {
				words = line
			}
		}
	}
	if len(words) > 300 {
		words = words[:300] + "…"
	}
	return fmt.Sprintf("%q (more in %s)", words, d.logFile())
}

// logSays reports whether the log contains one of the texts, in any case.
func (d *daemon) logSays(texts ...string) bool {
	b, err := os.ReadFile(d.logFile())
	if err != nil {
		return false
	}
	b = bytes.ToLower(b)
	for _, t := range texts {
		if bytes.Contains(b, []byte(strings.ToLower(t))) {
			return true
		}
	}
	return false
}

// commandLine returns the arguments of a process, joined by spaces, or ""
// when there is no such process or it is a zombie.
func commandLine(pid int) string {
	if runtime.GOOS == "linux" {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			return ""
		}
		return string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
	}
	out, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return string(out)
}
