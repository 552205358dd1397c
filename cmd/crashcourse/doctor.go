package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"crashcourse/cmd/crashcourse/internal/jupyter"
	"crashcourse/cmd/crashcourse/internal/servers"
	"crashcourse/pkg/progress"
)

func newDoctor() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at everything the course needs, and say how to fix what is wrong",
		Long: `Look at folders, disk, ports, Go, Python, JupyterLab, the kernel and the two
servers: what is there, which servers were taken and why, and how to fix what
is wrong. It starts nothing and changes nothing. The exit code is 1 when
something must be fixed.`,
		Example: `  crashcourse doctor
  crashcourse doctor --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := examine(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				if err := enc.Encode(d); err != nil {
					return err
				}
			} else {
				printDiagnosis(cmd, d)
			}
			if !d.OK {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// diagnosis is what `doctor --json` prints.
type diagnosis struct {
	Version int           `json:"version"` // 1
	OK      bool          `json:"ok"`
	Checks  []check       `json:"checks"`
	Servers serversChoice `json:"servers"`
}

type check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok or problem
	Found  string `json:"found"`
	Fix    string `json:"fix,omitempty"`
}

type serversChoice struct {
	Kind string   `json:"kind"` // environment, docker, private; "" while none run
	Why  []string `json:"why"`
}

func (d *diagnosis) add(name, found string, problem error, fix string) {
	c := check{name, "ok", found, ""}
	if problem != nil {
		text := problem.Error()
		for _, from := range []string{"servers: ", "jupyter: ", "state: "} {
			text = strings.TrimPrefix(text, from) // the package is no news here
		}
		c = check{name, "problem", text, fix}
		d.OK = false
	}
	d.Checks = append(d.Checks, c)
}

func examine(ctx context.Context) (diagnosis, error) {
	d := diagnosis{Version: 1, OK: true}
	root, dir, err := folders()
	if err != nil {
		d.add("folders", "", err, "run it inside the repository, and let CRASHCOURSE_STATE name a folder that can be written")
		return d, nil
	}
	d.add("repository", root, nil, "")
	d.add("state folder", dir, writable(dir), "give yourself the right to write there, or set CRASHCOURSE_STATE to another folder")
	free, err := servers.FreeDisk(dir)
	if err == nil && free < 2<<30 {
		err = fmt.Errorf("only %d MB are free on the disk of %s; 2 GB are wanted", free>>20, dir)
	}
	d.add("disk", fmt.Sprintf("%.1f GB free", float64(free)/(1<<30)), err, "free some space, or set CRASHCOURSE_STATE to a folder on another disk")
	_, err = servers.FreePort(0)
	d.add("ports", "loopback ports are free", err, "look at `ss -ltn`, and at what keeps programs from listening on 127.0.0.1")

	for _, f := range jupyter.Diagnose(ctx, jupyter.Options{Root: root, State: dir}) {
		d.add(f.Name, f.Found, f.Problem, f.Fix)
	}
	s := servers.Diagnose(ctx, servers.Options{Root: root, State: dir})
	d.Servers = serversChoice{s.Kind, s.Why}
	d.add("PostgreSQL", s.Postgres.Found, s.Postgres.Problem, s.Postgres.Fix)
	d.add("RabbitMQ", s.RabbitMQ.Found, s.RabbitMQ.Problem, s.RabbitMQ.Fix)
	if s.Accounts != (servers.Finding{}) {
		d.add("accounts", s.Accounts.Found, s.Accounts.Problem, s.Accounts.Fix)
	}
	list, _, err := progress.Load(dir)
	d.add("progress", fmt.Sprintf("exercises tried: %d", len(list)), err, "give yourself the right to read "+filepath.Join(dir, "progress"))
	return d, ctx.Err()
}

func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func printDiagnosis(cmd *cobra.Command, d diagnosis) {
	for _, c := range d.Checks {
		mark := "ok"
		if c.Status != "ok" {
			mark = "FIX"
		}
		cmd.Printf("%-4s %-13s %s\n", mark, c.Name, c.Found)
		if c.Fix != "" {
			cmd.Printf("%-4s %-13s → %s\n", "", "", c.Fix)
		}
	}
	kind := d.Servers.Kind
	if kind == "" {
		kind = "none run yet"
	}
	cmd.Printf("\nServers: %s\n", kind)
	for _, why := range d.Servers.Why {
		cmd.Printf("  - %s\n", why)
	}
	if d.OK {
		cmd.Println("\nNothing needs fixing.")
	}
}
