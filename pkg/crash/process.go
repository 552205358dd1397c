package crash

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"crashcourse/pkg/wire"
)

// Program is the program under test. In Args and Env, {{addr}} stands for a free
// address on which the process may listen, such as 127.0.0.1:23456, and {{port}}
// for its port alone: see [Process.Addr].
type Program struct {
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"`
	// Env is the environment of every start, but for what the runner adds:
	// DATABASE_URL and AMQP_URL of the proxied servers, the base URL of each service
	// (see [ServiceEnv]), HOME and TMPDIR of a new empty folder.
	Env []string `json:"env,omitempty"`
}

// Limits bound what a process under test may use. Zero values mean the defaults.
type Limits struct {
	Output int   // bytes of output kept; the rest is read and dropped (64 KiB)
	Flood  int64 // bytes of output after which the process is killed (64 MiB)
	Memory int64 // resident bytes after which it is killed (1 GiB)
	Tasks  int   // processes and threads (256)
}

func (l Limits) withDefaults() Limits {
	if l.Output == 0 {
		l.Output = 64 << 10
	}
	if l.Flood == 0 {
		l.Flood = 64 << 20
	}
	if l.Memory == 0 {
		l.Memory = 1 << 30
	}
	if l.Tasks == 0 {
		l.Tasks = 256
	}
	return l
}

// Process is one process under test, from its start to its end.
type Process struct {
	N    int // its number in the run, from 1: the Process of its points
	Slot int // which of the spec's processes it stands for, from 0

	arena   *Arena
	lane    *wire.Lane
	addr    string
	cmd     *exec.Cmd
	control net.Conn
	dir     string
	output  *tail
	ended   chan struct{} // closed when it has ended and been waited for
	mu      sync.Mutex    // guards control's writes
	replies int
	buried  bool                   // its end has been dealt with; the runner's own
	limit   atomic.Pointer[string] // the limit that it was killed for
}

// Send gives the process one line on its control channel. A process that has
// ended, or does not read, is no error here: its end is noticed elsewhere.
func (p *Process) Send(c Call) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("crash: encode a call: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.control.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = p.control.Write(append(b, '\n'))
	return nil
}

// Addr is what {{addr}} stood for when the process was started. The process that
// replaces it gets the same, so that clients may simply ask again.
func (p *Process) Addr() string { return p.addr }

// Output returns the end of what the process printed.
func (p *Process) Output() string { return p.output.String() }

// exceed kills the process for having hit a limit.
func (p *Process) exceed(what string) {
	if p.limit.CompareAndSwap(nil, &what) {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// hit returns the limit that the process was killed for, or "".
func (p *Process) hit() string {
	if l := p.limit.Load(); l != nil {
		return *l
	}
	return ""
}

func (p *Process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill ends the process and whatever it started, and waits for its end.
func (p *Process) kill() {
	if p.cmd.Process != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	<-p.ended
	p.arena.killStrays()
}

// start runs program behind lane.
func (a *Arena) start(program Program, lane *wire.Lane, slot int, limits Limits, events chan<- event) (*Process, error) {
	dir, err := os.MkdirTemp(a.scratch, "process-")
	if err != nil {
		return nil, fmt.Errorf("crash: make the process's folder: %w", err)
	}
	if err := a.own(dir); err != nil {
		return nil, err
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, fmt.Errorf("crash: make the control channel: %w", err)
	}
	defer theirs.Close()

	program = program.at(a.addrs[slot])
	p := &Process{N: lane.Process(), Slot: slot, arena: a, lane: lane, addr: a.addrs[slot], control: ours, dir: dir,
		output: newTail(limits.Output), ended: make(chan struct{})}
	cmd := exec.Command(program.Path, program.Args...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"DATABASE_URL=" + withHost(a.answerPostgres, lane.Postgres()),
		"AMQP_URL=" + withHost(a.answerAMQP, lane.AMQP()),
		"HOME=" + dir, "TMPDIR=" + dir,
	}, program.Env...)
	for _, name := range lane.Services() {
		cmd.Env = append(cmd.Env, ServiceEnv(name)+"=http://"+lane.Service(name))
	}
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	cmd.SysProcAttr = a.sysProcAttr()
	read, write, err := os.Pipe()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("crash: make the output pipe: %w", err)
	}
	cmd.Stdout, cmd.Stderr = write, write
	if err := a.nursery.start(cmd); err != nil {
		ours.Close()
		read.Close()
		write.Close()
		return nil, fmt.Errorf("crash: start %s: %w", filepath.Base(program.Path), err)
	}
	write.Close()
	p.cmd = cmd
	setLimits(cmd.Process.Pid, limits)

	go func() { // output: keep the end, count the rest
		buf := make([]byte, 16<<10)
		for {
			n, err := read.Read(buf)
			if total := p.output.add(buf[:n]); total > limits.Flood {
				p.exceed(fmt.Sprintf("printed more than %d MB", limits.Flood>>20))
			}
			if err != nil {
				read.Close()
				return
			}
		}
	}()
	go func() { // replies
		in := bufio.NewScanner(ours)
		in.Buffer(make([]byte, 4<<10), 64<<10)
		for in.Scan() {
			var r Reply
			if json.Unmarshal(in.Bytes(), &r) == nil {
				p.replies++
				if p.replies > 10_000 {
					return
				}
				events <- event{process: p, reply: &r}
			}
		}
	}()
	go func() {
		_ = cmd.Wait()
		a.nursery.forget(cmd.Process.Pid)
		// What the process left behind must not outlive it.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		ours.Close()
		close(p.ended)
		events <- event{process: p, ended: true}
	}()
	return p, nil
}

// cleanup removes what the ended process left.
func (p *Process) cleanup() {
	p.arena.killStrays()
	p.arena.sweepShared()
	_ = os.RemoveAll(p.dir)
}

// nursery knows the processes under test, and so tells them from orphans that
// they abandoned.
type nursery struct {
	mu   sync.Mutex
	pids map[int]bool
}

func (n *nursery) start(cmd *exec.Cmd) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	n.pids[cmd.Process.Pid] = true
	return nil
}

func (n *nursery) forget(pid int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pids, pid)
}

// event is something a process did.
type event struct {
	process *Process
	reply   *Reply
	ended   bool
}

// withHost returns the URL with another host and port.
func withHost(raw, host string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	u.Host = host
	return u.String()
}

// socketpair returns a connected pair: one end for us, one for a child.
func socketpair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, err
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	ours := os.NewFile(uintptr(fds[0]), "control")
	conn, err := net.FileConn(ours)
	ours.Close()
	theirs := os.NewFile(uintptr(fds[1]), "control")
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}

// tail keeps the end of a stream.
type tail struct {
	mu    sync.Mutex
	buf   []byte
	max   int
	total int64
}

func newTail(max int) *tail { return &tail{max: max} }

func (t *tail) add(b []byte) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total += int64(len(b))
	t.buf = append(t.buf, b...)
	if len(t.buf) > 2*t.max {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.max:]...)
	}
	return t.total
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buf
	if len(b) > t.max {
		b = b[len(b)-t.max:]
	}
	s := string(b)
	if t.total > int64(len(b)) {
		s = fmt.Sprintf("… %d bytes before this …\n", t.total-int64(len(b))) + s
	}
	return s
}
