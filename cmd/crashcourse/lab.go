package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"crashcourse/cmd/crashcourse/internal/answers"
	"crashcourse/cmd/crashcourse/internal/jupyter"
	"crashcourse/cmd/crashcourse/internal/labserver"
	"crashcourse/cmd/crashcourse/internal/servers"
	"crashcourse/cmd/crashcourse/internal/steps"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/state"
)

func newLab() *cobra.Command {
	var port int
	var noBrowser, prepare bool
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Open the notebooks: servers, kernel and JupyterLab, until Ctrl-C",
		Long: `Set up what is missing, start PostgreSQL, RabbitMQ and JupyterLab, print the
address and open the browser where there is one. Ctrl-C stops all that was
started, and nothing else.

The first time takes some minutes and a network; afterwards it takes seconds
and works offline.`,
		Example: `  crashcourse lab
  crashcourse lab --no-browser --port 8888
  crashcourse lab --prepare             set up only, then exit`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if port < 0 || port > 65535 {
				return usagef("--port must be between 1 and 65535, not %d", port)
			}
			log := steps.New(os.Stderr)
			opt, err := serverOptions(log)
			if err != nil {
				return err
			}
			jopt := jupyterOptions(opt)
			if prepare {
				return jupyter.Prepare(cmd.Context(), jopt)
			}
			return lab(cmd, opt, jopt, port, noBrowser)
		},
	}
	cmd.Flags().IntVar(&port, "port", 0, "JupyterLab's port (default: the one it had last time, or a free one)")
	cmd.Flags().BoolVar(&noBrowser, "no-browser", false, "do not open a browser")
	cmd.Flags().BoolVar(&prepare, "prepare", false, "set up JupyterLab and the kernel, start nothing, then exit")
	return cmd
}

func jupyterOptions(opt servers.Options) jupyter.Options {
	return jupyter.Options{Root: opt.Root, State: opt.State, Log: opt.Log,
		Install: func(ctx context.Context, packages ...string) error {
			return servers.InstallPackages(ctx, opt, packages...)
		}}
}

func lab(cmd *cobra.Command, opt servers.Options, jopt jupyter.Options, port int, noBrowser bool) (err error) {
	unlock, running, err := claimLab(opt.State)
	if err != nil {
		return err
	}
	if running != "" {
		cmd.Printf("The lab of this checkout runs already:\n\n    %s\n\n", running)
		openBrowser(noBrowser, running)
		return nil
	}
	defer unlock()

	leaveOnSecondSignal(cmd.Context())
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	var wg sync.WaitGroup
	var lease *servers.Lease
	wg.Go(func() {
		var err error
		if lease, err = servers.Up(ctx, opt); err != nil {
			cancel(err)
		}
	})
	defer func() {
		wg.Wait()
		if lease != nil {
			err = errors.Join(err, release(opt.Log, lease))
		}
	}()
	sessions, err := labserver.Start(ctx, opt.State, jupyter.LabPath, 0, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		cancel(err)
		return first(ctx, err)
	}
	defer func() { err = errors.Join(err, sessions.Stop()) }()
	jopt.LabPort, jopt.LabToken = sessions.Port(), sessions.At().Token
	if err := jupyter.Prepare(ctx, jopt); err != nil {
		cancel(err)
		return first(ctx, err)
	}
	j, err := jupyter.Start(ctx, jopt, port, servers.FreePort)
	if err != nil {
		cancel(err)
		return first(ctx, err)
	}
	defer func() {
		opt.Log.Say("jupyter", "stopping JupyterLab (Ctrl-C again leaves everything as it is)")
		err = errors.Join(err, j.Stop())
	}()
	wg.Wait()
	if ctx.Err() != nil {
		return first(ctx, ctx.Err())
	}
	if lease.Servers.Kind == servers.KindEnvironment {
		// Cells look for the addresses in the state folder, not in their
		// environment, where every program they start could read them.
		if err := state.SaveServers(opt.State, lease.Servers); err != nil {
			return err
		}
	}
	if err := state.WriteFile(labFile(opt.State), []byte(`{"url":"`+j.URL()+`"}`), 0o600); err != nil {
		return err
	}
	wg.Go(func() { warm(ctx, jopt) })
	defer cancel(nil)
	cmd.Printf("\nThe lab is open:\n\n    %s\n\nLive sessions by themselves, for VS Code: %s/?token=%s\nRabbitMQ's management page: %s\n(log in as amqp_url in %s says)\nCtrl-C stops it.\n\n",
		j.URL(), sessions.At().URL, sessions.At().Token, j.Proxied(servers.Where(lease.Servers.Management)), filepath.Join(opt.State, "servers.json"))
	openBrowser(noBrowser, j.URL())
	select {
	case <-ctx.Done():
		return nil // as asked
	case <-j.Done():
		return fmt.Errorf("JupyterLab ended by itself (%v): see %s", j.Err(), filepath.Join(opt.State, "jupyter", "log"))
	}
}

// leaveOnSecondSignal ends the process at once when, after the signal that
// ended ctx, another one comes; what runs is then left to the next lab. One
// that comes within a second is the same one again: some wrappers send a
// signal both to a process and to its group.
func leaveOnSecondSignal(ctx context.Context) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, func() {
		for first := time.Now(); ; {
			if <-signals; time.Since(first) > time.Second {
				os.Exit(exitInterrupted)
			}
		}
	})
}

// warm prepares what the first cells would wait for. Whatever fails here fails
// again, and is told, where it is needed.
func warm(ctx context.Context, jopt jupyter.Options) {
	jupyter.Warm(ctx, jopt)
	patterns, err := answers.Patterns()
	if err != nil || ctx.Err() != nil {
		return
	}
	for _, p := range patterns {
		step := jopt.Log.Begin("judge", "building the judge of %s, if it has changed", p)
		if _, _, err := exercise.JudgeBinary(ctx, p, nil); err != nil {
			step.Fail()
			return
		}
		step.Done("the judge of %s is ready", p)
	}
}

// first returns what went wrong first: the parts run side by side, and the
// others end only because they were told to.
func first(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func labFile(dir string) string { return filepath.Join(dir, "lab.json") }

// claimLab makes this process the lab of the state folder, or returns the
// address of the one that runs.
func claimLab(dir string) (unlock func(), running string, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lab.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, "", err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		_ = os.Remove(labFile(dir)) // of a lab that was killed
		return func() {
			_ = os.Remove(labFile(dir))
			_ = f.Close()
		}, "", nil
	}
	defer f.Close()
	var at struct {
		URL string `json:"url"`
	}
	b, err := os.ReadFile(labFile(dir))
	if err == nil && json.Unmarshal(b, &at) == nil && at.URL != "" {
		return nil, at.URL, nil
	}
	return nil, "", errors.New("another `crashcourse lab` of this checkout is just starting or stopping: wait for it, or end it")
}

// openBrowser opens url where there is a browser to be expected. That it does
// not work is no error: the address has been printed.
func openBrowser(no bool, url string) {
	if no {
		return
	}
	var candidates []string
	switch {
	case runtime.GOOS == "darwin":
		candidates = []string{"open"}
	case os.Getenv("WSL_DISTRO_NAME") != "":
		candidates = []string{"wslview", "xdg-open"}
	case os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "":
		candidates = []string{"xdg-open", "x-www-browser"}
	}
	if b := os.Getenv("BROWSER"); b != "" {
		candidates = append([]string{b}, candidates...)
	}
	for _, c := range candidates {
		path, err := exec.LookPath(c)
		if err != nil {
			continue
		}
		cmd := exec.Command(path, url)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if cmd.Start() == nil {
			go func() { _ = cmd.Wait() }() // how it ends is its own affair
			return
		}
	}
}
