package crash

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// sysProcAttr puts the process into a group of its own, ties its life to the
// judge's, and, where the judge is root, takes the root away from it.
func (a *Arena) sysProcAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if a.uid != 0 {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.uid, NoSetGroups: false}
	}
	return attr
}

// setLimits sets what the kernel can hold a process to. Memory is watched by the
// runner instead: Go reserves far more address space than it uses.
func setLimits(pid int, l Limits) {
	set := func(resource int, n uint64) {
		_ = unix.Prlimit(pid, resource, &unix.Rlimit{Cur: n, Max: n}, nil)
	}
	set(unix.RLIMIT_CORE, 0)
	set(unix.RLIMIT_FSIZE, 64<<20)
	set(unix.RLIMIT_NPROC, uint64(l.Tasks))
}

// adoptOrphans makes processes that were abandoned by those under test children
// of the judge, so that none escapes by forking twice.
func adoptOrphans() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// killStrays kills the orphans that processes under test left behind: children
// of ours that we did not start, and that belong to this arena.
func (a *Arena) killStrays() {
	a.nursery.mu.Lock()
	defer a.nursery.mu.Unlock()
	// Orphans become children of the first thread.
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err != nil {
		return
	}
	for _, f := range bytes.Fields(b) {
		pid, err := strconv.Atoi(string(f))
		if err != nil || a.nursery.pids[pid] || !a.owns(pid) {
			continue
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}

// owns says whether a process came out of this arena: by its user, which no
// other arena has, or else by the home folder that it was started with.
func (a *Arena) owns(pid int) bool {
	if a.uid != 0 {
		info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		if err != nil {
			return false
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		return ok && stat.Uid == a.uid
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && bytes.Contains(env, []byte("HOME="+a.scratch))
}

// sweepShared removes what the arena's user has left in folders that everybody
// may write to, so that one life of a program cannot leave word for the next.
func (a *Arena) sweepShared() {
	if a.uid == 0 {
		return
	}
	for _, dir := range []string{"/dev/shm", "/dev/mqueue", "/tmp", "/var/tmp", "/run/lock"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				continue
			}
			if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == a.uid {
				_ = os.RemoveAll(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// usage is what a process has used so far.
type usage struct {
	cpu      uint64 // nanoseconds
	resident int64  // bytes
	known    bool
}

func (p *Process) usage() usage {
	var u usage
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		return u
	}
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		if f := bytes.Fields(b); len(f) > 0 {
			ns, _ := strconv.ParseUint(string(f[0]), 10, 64)
			u.cpu += ns
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid)); err == nil {
		if f := bytes.Fields(b); len(f) > 1 {
			pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
			u.resident = pages * int64(os.Getpagesize())
		}
	}
	u.known = true
	return u
}
