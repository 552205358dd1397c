//go:build !linux

package crash

import "syscall"

func (a *Arena) sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func setLimits(int, Limits) {}

func adoptOrphans() {}

func (a *Arena) killStrays() {}

func (a *Arena) sweepShared() {}

type usage struct {
	cpu      uint64
	resident int64
	known    bool
}

// usage is not known here: rest is read off the wires alone.
func (p *Process) usage() usage { return usage{} }
