package servers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

var (
	errNoPostgres = errors.New("PostgreSQL was not found: install version 15 or newer, start Docker, or set DATABASE_URL and AMQP_URL")
	errNoRabbit   = errors.New("RabbitMQ was not found: install version 3.10 or newer, start Docker, or set DATABASE_URL and AMQP_URL")
)

// installMissing installs the servers' packages on Debian and Ubuntu, when we
// are root and they are not there. Elsewhere it does nothing: the search for
// the binaries then says what is missing.
func installMissing(ctx context.Context, opt Options) error {
	var want []string
	if _, _, err := findPostgres(ctx); errors.Is(err, errNoPostgres) {
		want = append(want, "postgresql")
	}
	if _, _, err := findRabbit(); errors.Is(err, errNoRabbit) {
		want = append(want, "rabbitmq-server")
	}
	if len(want) == 0 {
		return nil
	}
	return InstallPackages(ctx, opt, want...)
}

// InstallPackages installs Debian packages as root, without letting their
// services start. It does nothing when we are not root or have no apt-get.
func InstallPackages(ctx context.Context, opt Options, packages ...string) error {
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return nil
	}
	// One at a time on this machine: the policy below is the machine's.
	one, err := lockFile(ctx, "/run/lock/crashcourse-packages.lock", true, func() {
		opt.Log.Say("packages", "another installation is under way: waiting for it")
	})
	if err != nil {
		return err
	}
	defer one.release()
	names := strings.Join(packages, " ")
	step := opt.Log.Begin("packages", "installing Debian packages, as we are root and they are missing: %s", names)
	restore, err := forbidServices()
	if err != nil {
		step.Fail()
		return err
	}
	err = install(ctx, step.Now, packages)
	err = errors.Join(err, restore())
	if err != nil {
		step.Fail()
		return fmt.Errorf("servers: install %s: %w", names, err)
	}
	// They were installed for the course alone: no service at the next boot.
	if systemctl, err := exec.LookPath("systemctl"); err == nil {
		for _, p := range packages {
			_ = exec.CommandContext(ctx, systemctl, "--no-reload", "disable", p).Run() // not every package has a service
		}
	}
	step.Done("installed %s; their services are neither started nor enabled", names)
	return nil
}

func install(ctx context.Context, now func(string, ...any), packages []string) error {
	now("apt-get update")
	if err := apt(ctx, "update"); err != nil {
		return err
	}
	args := append([]string{"install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"}, packages...)
	now("fetching %s", strings.Join(packages, " "))
	if err := apt(ctx, append(args, "--download-only")...); err != nil {
		return err
	}
	// Unpacking is not broken off: dpkg would be left half way.
	now("unpacking %s", strings.Join(packages, " "))
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Minute)
	defer cancel()
	return errors.Join(apt(patience, args...), ctx.Err())
}

func apt(ctx context.Context, args ...string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	(*account)(nil).as(cmd)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("apt-get %s: %w: %s: check the network and /etc/apt/sources.list, or install them yourself", args[0], err, complaint(out.Bytes()))
	}
	return nil
}

// complaint returns the first error line of apt's output, or the last line.
func complaint(out []byte) string {
	last := "no output"
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		if strings.HasPrefix(sc.Text(), "E:") {
			return sc.Text()
		}
		last = sc.Text()
	}
	return last
}

const (
	policyFile = "/usr/sbin/policy-rc.d"
	policyMark = "# Written by crashcourse while it installs packages; safe to remove."
	policy     = "#!/bin/sh\n" + policyMark + "\nexit 101\n"
)

// forbidServices makes Debian's packages leave their services alone, and
// returns how to undo that. A policy that somebody else wrote is put aside
// meanwhile.
func forbidServices() (restore func() error, err error) {
	aside := policyFile + ".crashcourse-aside"
	old, err := os.ReadFile(policyFile)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && bytes.Contains(old, []byte(policyMark)):
		// None, or ours from a run that was killed.
	case err != nil:
		return nil, fmt.Errorf("servers: %w", err)
	default:
		if err := os.Rename(policyFile, aside); err != nil {
			return nil, fmt.Errorf("servers: %w", err)
		}
	}
	undo := func() error {
		err := os.Remove(policyFile)
		if _, statErr := os.Lstat(aside); statErr == nil {
			err = os.Rename(aside, policyFile)
		}
		if err != nil {
			return fmt.Errorf("servers: put %s back: %w", policyFile, err)
		}
		return nil
	}
	if err := os.WriteFile(policyFile, []byte(policy), 0o755); err != nil {
		return nil, errors.Join(fmt.Errorf("servers: %w", err), undo())
	}
	return undo, nil
}
