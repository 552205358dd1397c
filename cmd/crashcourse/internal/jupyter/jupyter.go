// Package jupyter sets up JupyterLab and the Go kernel in the state folder,
// and runs them.
//
// Nothing of it touches the user's own Python, Jupyter or Go tools: the
// Python environment, the tools, Jupyter's configuration, its data and its
// kernels all live below the state folder. After the first set-up it all works
// without a network.
//
//	<state>/venv       JupyterLab and friends, from requirements.txt
//	<state>/bin        gonb, gopls, goimports and this command itself
//	<state>/jupyter    configuration, data (with the kernelspec), runtime files
//	<state>/tmp        one folder per running kernel
//	<state>/stamps     what was set up, so that the next time is quick
//
// The kernelspec does not start GoNB itself but `crashcourse kernel`, which
// becomes GoNB: see [Exec]. [Prepare] sets everything up, [Environ] is what a
// Jupyter client needs to find it, and [Start] runs JupyterLab.
package jupyter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"crashcourse/cmd/crashcourse/internal/steps"
	"crashcourse/pkg/state"
)

// KernelName is the kernel's name in a notebook's metadata.
const KernelName = "crashcourse-go"

// Options says where things are. Both folders must be absolute.
type Options struct {
	Root  string     // the repository
	State string     // its state folder; must exist
	Log   *steps.Log // told what is being done; nil: nobody
	// Install installs Debian packages when we are root there, and does
	// nothing elsewhere; nil: never.
	Install func(ctx context.Context, packages ...string) error
	// LabPort is where the lab server listens, for JupyterLab to pass requests on
	// to it with LabToken; 0: there is none.
	LabPort  int
	LabToken string
	// BaseURL is the path that JupyterLab's addresses begin with; empty is "/".
	BaseURL string
}

func (o Options) path(elem ...string) string {
	return filepath.Join(append([]string{o.State}, elem...)...)
}

// Python returns the interpreter of the Python environment.
func (o Options) Python() string { return o.path("venv", "bin", "python") }

// Prepare sets up whatever is missing or out of date: Python and Go side by
// side, then the kernelspec. It does not start anything.
func Prepare(ctx context.Context, opt Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, part := range []func(context.Context, Options) error{preparePython, prepareTools} {
		wg.Go(func() {
			if err := part(ctx, opt); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return writeSettings(opt)
}

// Environ returns base, changed so that Jupyter and its clients find what
// [Prepare] set up and nothing else. The servers' addresses are taken out:
// cells find them through the state folder, and no password is in the
// environment of everything a notebook starts.
func Environ(opt Options, base []string) []string {
	return setEnv(base, map[string]string{
		"JUPYTER_CONFIG_DIR":        opt.path("jupyter", "config"),
		"JUPYTER_DATA_DIR":          opt.path("jupyter", "data"),
		"JUPYTER_RUNTIME_DIR":       opt.path("jupyter", "runtime"),
		"JUPYTERLAB_SETTINGS_DIR":   opt.path("jupyter", "config", "lab", "user-settings"),
		"JUPYTERLAB_WORKSPACES_DIR": opt.path("jupyter", "config", "lab", "workspaces"),
		"IPYTHONDIR":                opt.path("jupyter", "ipython"),
		"PATH":                      opt.path("venv", "bin") + string(os.PathListSeparator) + opt.path("bin") + string(os.PathListSeparator) + os.Getenv("PATH"),
		"PYTHONNOUSERSITE":          "1",
		"JUPYTER_PATH":              "",
		"PYTHONPATH":                "",
		"PYTHONHOME":                "",
		state.RootEnv:               opt.Root,
		state.DirEnv:                opt.State,
		state.PostgresEnv:           "",
		state.AMQPEnv:               "",
		state.ManagementEnv:         "",
	})
}

// setEnv returns base with the variables set; "" takes one out.
func setEnv(base []string, set map[string]string) []string {
	var env []string
	for _, kv := range base {
		name, _, _ := strings.Cut(kv, "=")
		if _, ok := set[name]; !ok {
			env = append(env, kv)
		}
	}
	for name, value := range set {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// fresh reports whether the stamp called name says that what fingerprint
// describes was set up already.
func (o Options) fresh(name, fingerprint string) bool {
	b, err := os.ReadFile(o.path("stamps", name))
	return err == nil && string(b) == fingerprint
}

// stamp remembers that what fingerprint describes is set up.
func (o Options) stamp(name, fingerprint string) error {
	if err := os.MkdirAll(o.path("stamps"), 0o755); err != nil {
		return fmt.Errorf("jupyter: %w", err)
	}
	return state.WriteFile(o.path("stamps", name), []byte(fingerprint), 0o644)
}

func fingerprint(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}

// run executes a program in a session of its own, so that Ctrl-C reaches us
// alone; when ctx ends, it and its children are ended. line, if not nil, is
// given each line of output. The error carries the last lines.
func run(ctx context.Context, dir string, env []string, line func(string), argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Dir, cmd.Env = dir, env
	out := &lines{each: line}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		if strings.Contains(out.all.String(), "No space left on device") {
			return "", fmt.Errorf("the disk of %s is full: free some space, or set CRASHCOURSE_STATE to a folder on another disk", dir)
		}
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, out.tail())
	}
	return out.all.String(), nil
}

// lines collects output and passes it on by the line.
type lines struct {
	all  strings.Builder
	part string
	each func(string)
}

func (l *lines) Write(p []byte) (int, error) {
	l.all.Write(p)
	if l.each != nil {
		l.part += string(p)
		for {
			line, rest, ok := strings.Cut(l.part, "\n")
			if !ok {
				break
			}
			l.each(strings.TrimSpace(line))
			l.part = rest
		}
	}
	return len(p), nil
}

func (l *lines) tail() string {
	all := strings.Split(strings.TrimSpace(l.all.String()), "\n")
	return strings.Join(all[max(0, len(all)-4):], " / ")
}

// brief is the last of the lines that an error carries.
func brief(err error) string {
	text := err.Error()
	return strings.TrimPrefix(text[max(0, strings.LastIndex(text, " / ")):], " / ")
}

// offline recognises that a download failed for want of a network.
func offline(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	text := strings.ToLower(err.Error())
	for _, sign := range []string{
		"name or service not known", "temporary failure in name resolution", "network is unreachable", "no such host",
		"connection refused", "failed to establish a new connection", "i/o timeout", "dns error", "error sending request",
		"no matching distribution", "could not find a version", "proxyerror", "max retries",
	} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}
