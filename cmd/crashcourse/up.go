package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"crashcourse/cmd/crashcourse/internal/servers"
	"crashcourse/cmd/crashcourse/internal/steps"
	"crashcourse/pkg/state"
)

func newUp() *cobra.Command {
	return &cobra.Command{
		Use:   "up [-- COMMAND [ARGUMENT…]]",
		Short: "Start PostgreSQL and RabbitMQ, or run a command with both up",
		Long: `Find PostgreSQL and RabbitMQ, or start them, in this order: the addresses in
DATABASE_URL, AMQP_URL and AMQP_MANAGEMENT_URL; Docker, when an engine answers;
private instances of the installed binaries on free ports (root on Debian or
Ubuntu gets the packages installed first). CRASHCOURSE_POSTGRES_BIN, the folder
of postgres and initdb, and CRASHCOURSE_RABBITMQ_HOME, the folder of sbin and
plugins, name other binaries than the newest installed; then Docker is not asked.

Without a command the servers stay up until "crashcourse down". With one, it
runs with the three variables in its environment; afterwards the servers that
were started for it stop again, and its exit code is passed on.`,
		Example: `  crashcourse up
  crashcourse up -- go test ./...
  crashcourse up -- sh -c 'psql "$DATABASE_URL"'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return usagef("put -- before the command: crashcourse up -- %s", strings.Join(args, " "))
			}
			opt, err := serverOptions(steps.New(os.Stderr))
			if err != nil {
				return err
			}
			lease, err := servers.Up(cmd.Context(), opt)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if err := lease.Keep(); err != nil {
					return err
				}
				printServers(cmd, lease)
				return nil
			}
			code, err := runWith(cmd.Context(), lease.Servers, args)
			if err2 := release(opt.Log, lease); err == nil {
				err = err2
			}
			if err != nil {
				return err
			}
			if code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
}

func serverOptions(log *steps.Log) (servers.Options, error) {
	root, dir, err := folders()
	return servers.Options{Root: root, State: dir, Log: log}, err
}

func printServers(cmd *cobra.Command, lease *servers.Lease) {
	s := lease.Servers
	cmd.Printf("PostgreSQL  %s\nRabbitMQ    %s\nManagement  http://%s\n", servers.Where(s.Postgres), servers.Where(s.AMQP), servers.Where(s.Management))
	if len(lease.Started) == 0 {
		cmd.Printf("They ran already (%s).\n", s.Kind)
	} else {
		cmd.Printf("Started (%s): %s. `crashcourse down` stops them.\n", s.Kind, strings.Join(lease.Started, ", "))
	}
}

// release ends the lease even when the command has been interrupted.
func release(log *steps.Log, lease *servers.Lease) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	stopped, err := lease.Release(ctx)
	if len(stopped) > 0 {
		log.Say("servers", "stopped %s", strings.Join(stopped, ", "))
	}
	return err
}

// runWith runs a command with the servers' addresses in its environment and
// returns its exit code, as a shell would.
func runWith(ctx context.Context, s state.Servers, argv []string) (int, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(),
		state.PostgresEnv+"="+s.Postgres, state.AMQPEnv+"="+s.AMQP, state.ManagementEnv+"="+s.Management)

	// At a terminal, Ctrl-C reaches the command and its children by itself.
	// Elsewhere they get a group of their own, so that what ends us ends them.
	terminal := atTerminal(os.Stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !terminal}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return 127, &exitError{127, fmt.Errorf("run %s: %w", argv[0], err)}
		}
		return 126, &exitError{126, fmt.Errorf("run %s: %w", argv[0], err)}
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			// It may have ended just now.
			if s, ok := sig.(syscall.Signal); ok && !terminal {
				_ = syscall.Kill(-cmd.Process.Pid, s)
			} else if sig != os.Interrupt {
				_ = cmd.Process.Signal(sig)
			}
		case err := <-done:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
					return 128 + int(status.Signal()), nil
				}
				return exit.ExitCode(), nil
			}
			if err != nil {
				return 0, fmt.Errorf("run %s: %w", argv[0], err)
			}
			return 0, nil
		}
	}
}

// atTerminal reports whether f is a terminal rather than a file or a pipe.
func atTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
