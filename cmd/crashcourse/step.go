package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"crashcourse/cmd/crashcourse/internal/servers"
	"crashcourse/cmd/crashcourse/internal/steps"
	"crashcourse/cmd/crashcourse/internal/terminal"
	"crashcourse/pkg/state"
	"crashcourse/pkg/step"
)

// mostCopies is how many processes can be followed on one screen.
const mostCopies = 8

func newStep() *cobra.Command {
	var prepare string
	var copies int
	cmd := &cobra.Command{
		Use:   "step [--prepare COMMAND] -- PROGRAM [ARGUMENT…]",
		Short: "Step through any program, message by message, and crash it where you like",
		Long: `Run a program so that each of its messages to PostgreSQL and RabbitMQ waits
until you let it pass, and look meanwhile at what the tables and queues hold. You
can crash the process at any message, break its connections, start it again, or
make the whole run anew.

The program takes its addresses from DATABASE_URL and AMQP_URL, as with
"crashcourse up", and may be written in any language. The servers are started if
none run, and what the program writes stays in them. It reads nothing: its
standard input is no terminal. What it prints is shown when it has ended.

--prepare makes the starting state. It is given to sh, runs before the program,
and runs again each time you make the run anew.`,
		Example: `  crashcourse step -- ./relay
  crashcourse step --prepare 'psql "$DATABASE_URL" -f tables.sql' -- python3 relay.py
  crashcourse step --copies 2 -- ./worker --queue orders`,
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := stepConfig(cmd, args, prepare, copies)
			if err != nil {
				return err
			}
			if err := needTerminal("run it in a terminal window; in a notebook, use l.Step"); err != nil {
				return err
			}
			return stepThrough(cmd.Context(), config)
		},
	}
	cmd.Flags().StringVar(&prepare, "prepare", "", "make the starting state with this `command`")
	cmd.Flags().IntVar(&copies, "copies", 1, "run the program in this `number` of processes")
	return cmd
}

// stepConfig says what to run; the addresses are not known yet.
func stepConfig(cmd *cobra.Command, args []string, prepare string, copies int) (step.Config, error) {
	switch dash := cmd.ArgsLenAtDash(); {
	case len(args) == 0:
		return step.Config{}, usagef("say which program to step through: crashcourse step -- PROGRAM")
	case dash != 0:
		return step.Config{}, usagef("put -- before the program: crashcourse step -- %s", strings.Join(args, " "))
	case copies < 1 || copies > mostCopies:
		return step.Config{}, usagef("--copies must be from 1 to %d", mostCopies)
	}
	path, err := exec.LookPath(args[0])
	switch {
	case errors.Is(err, exec.ErrDot):
		return step.Config{}, usagef("the program is in this folder: write ./%s", args[0])
	case err != nil:
		return step.Config{}, usagef("the program cannot be run: %w", err)
	}
	name := filepath.Base(path)
	config := step.Config{Title: strings.Join(append([]string{name}, args[1:]...), " ")}
	for range copies {
		config.Works = append(config.Works, step.Work{Name: name, Path: path, Args: args[1:], Plain: true})
	}
	if copies > 1 {
		config.Title += " × " + strconv.Itoa(copies)
	}
	if prepare != "" {
		sh, err := exec.LookPath("sh")
		if err != nil {
			return step.Config{}, usagef("--prepare needs a shell: %w", err)
		}
		config.Prepare = step.Work{Name: "prepare", Path: sh, Args: []string{"-c", prepare}, Plain: true}
	}
	return config, nil
}

// needTerminal refuses to show a screen where there is none.
func needTerminal(instead string) error {
	for _, f := range []*os.File{os.Stdin, os.Stdout} {
		if !term.IsTerminal(int(f.Fd())) {
			return usagef("this needs a terminal for its keys and its screen, and %s is none: %s", strings.TrimPrefix(f.Name(), "/dev/"), instead)
		}
	}
	if os.Getenv("TERM") == "dumb" {
		return usagef("this terminal cannot move its cursor (TERM is dumb): %s", instead)
	}
	return nil
}

// stepThrough steps through what config says, on servers that it starts if none
// run.
func stepThrough(ctx context.Context, config step.Config) (err error) {
	opt, err := serverOptions(steps.New(os.Stderr))
	if err != nil {
		return err
	}
	lease, err := servers.Up(ctx, opt)
	if err != nil {
		return err
	}
	defer func() {
		if e := release(opt.Log, lease); err == nil {
			err = e
		}
	}()
	at := lease.Servers
	config.Postgres, config.AMQP, config.Management = at.Postgres, at.AMQP, at.Management
	env := append(os.Environ(), state.ManagementEnv+"="+at.Management)
	config.Prepare.Env = env
	for i := range config.Works {
		config.Works[i].Env = env
	}
	s, err := step.Start(ctx, config)
	if err != nil {
		return err
	}
	defer s.Close("")
	return terminal.Run(ctx, terminal.NewLive(ctx, s), os.Stdin, os.Stdout)
}
