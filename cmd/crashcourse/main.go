// Command crashcourse runs the course: it starts what the notebooks need,
// judges answers, and tells how far a learner has come.
//
//	crashcourse lab      everything up, JupyterLab in the browser, until Ctrl-C
//	crashcourse up       PostgreSQL and RabbitMQ only
//	crashcourse doctor   what is wrong, and what to do about it
//
// Exit codes are the same everywhere: 0 for well, 1 for a finding (an answer
// failed, something must be fixed, an error), 2 for "could not be judged", 64
// for a wrong use of the command. `crashcourse up -- CMD` passes on the exit
// code of CMD.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"crashcourse/pkg/state"
)

// Exit codes beside 0 and 1.
const (
	exitUsage       = 64  // a wrong use of the command
	exitInterrupted = 130 // as shells have it
)

// exitError carries an exit code up to main. A nil err exits without a word:
// what there was to say has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is an error in the use of the command.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func main() {
	// A signal asks for an orderly end, which every command brings to an end
	// in bounded time.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := newRoot().ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	os.Exit(report(err, interrupted))
}

// report prints what there is to say about err and returns the exit code.
func report(err error, interrupted bool) int {
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintln(os.Stderr, "crashcourse:", exit.err)
		}
		if exit.code == exitUsage {
			fmt.Fprintln(os.Stderr, "See `crashcourse --help`.")
		}
		return exit.code
	case interrupted && errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "crashcourse: stopped")
		return exitInterrupted
	}
	fmt.Fprintln(os.Stderr, "crashcourse:", err)
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "crashcourse",
		Short: "A crash course in async architecture patterns, where every answer really is crashed",
		Long: `A crash course in async architecture patterns, in Go, on a real PostgreSQL and
a real RabbitMQ, where every answer really is crashed.

Begin with "crashcourse lab".`,
		Example: `  crashcourse lab                      open the notebooks
  crashcourse check outbox/relay       judge your answer in exercises/outbox
  crashcourse replay                   step through what broke it
  crashcourse step -- ./program        step through any program
  crashcourse up -- go test ./...      run something with both servers up
  source <(crashcourse completion bash)`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(os.Stdout)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%s: %w", cmd.CommandPath(), err)
	})
	root.AddCommand(newLab(), newUp(), newDown(), newDoctor(), newStatus(), newKernel(), newCheck(), newVerify(), newReplay(), newStep(), newNew())
	return root
}

// noArgs refuses arguments as a wrong use of the command.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments, but got %q", cmd.CommandPath(), args)
	}
	return nil
}

// folders returns the repository's root and its state folder. It also puts
// both into the environment, so that everything started from here agrees.
func folders() (root, dir string, err error) {
	if root, err = state.Root(); err != nil {
		return "", "", err
	}
	if dir, err = state.Dir(); err != nil {
		return "", "", err
	}
	// Names of links would not be found again in command lines.
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return "", "", fmt.Errorf("the repository: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", "", fmt.Errorf("the state folder: %w", err)
	}
	return root, dir, errors.Join(os.Setenv(state.RootEnv, root), os.Setenv(state.DirEnv, dir))
}
