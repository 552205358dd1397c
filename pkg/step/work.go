package step

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/crash"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/wire"
)

// Work is a program that does one piece of work in a process of its own.
//
// It finds its addresses in DATABASE_URL and AMQP_URL, and those of services where
// [crash.ServiceEnv] says. When a line, or the end
// of its standard input, comes, it should stop. On descriptor 3 it may write a
// [Report] at its end.
type Work struct {
	Name string   `json:"name"`
	Path string   `json:"path"`
	Args []string `json:"args"`
	Env  []string `json:"env"` // all of it, but for the addresses
	// Plain is a program that writes no [Report]: its exit code says how it ended.
	Plain bool `json:"plain,omitempty"`
}

// Report is what a process says of itself at its end.
type Report struct {
	Error string `json:"error,omitempty"` // empty: its work is done
}

// ReportFD is the descriptor that a [Report] is written to, as JSON.
const ReportFD = 3

// Process is a running [Work].
type Process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output clipped
	ended  chan struct{}
	end    End // read after ended
}

// End is how a process ended by itself.
type End struct {
	Report Report
	Told   bool  // it wrote a Report
	Plain  bool  // it writes none
	Err    error // of [exec.Cmd.Wait]
}

// Well says whether it ended with its work done.
func (e End) Well() bool {
	if e.Plain {
		return e.Err == nil
	}
	return e.Told && e.Report.Error == ""
}

// String says how it ended, to follow the process's name.
func (e End) String() string {
	switch {
	case e.Plain && e.Err != nil:
		return fmt.Sprintf("ended: %v", e.Err)
	case e.Plain:
		return "ended well"
	case e.Report.Error != "":
		return "returned an error: " + e.Report.Error
	case !e.Told && e.Err != nil:
		return fmt.Sprintf("ended before its function returned (%v)", e.Err)
	case !e.Told:
		return "ended"
	}
	return "returned nil"
}

// Run starts w with the two addresses, and with what more is to be in its
// environment.
func (w Work) Run(databaseURL, amqpURL string, env ...string) (*Process, error) {
	p := &Process{ended: make(chan struct{}), end: End{Plain: w.Plain}}
	p.cmd = exec.Command(w.Path, w.Args...)
	p.cmd.Env = append(append([]string{}, w.Env...), "DATABASE_URL="+databaseURL, "AMQP_URL="+amqpURL)
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is not for it
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("step: start %s: %w", w.Name, err)
	}
	report, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("step: start %s: %w", w.Name, err)
	}
	p.cmd.ExtraFiles = []*os.File{theirs}
	err = p.cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = report.Close()
		return nil, fmt.Errorf("step: start %s: %w", w.Name, err)
	}
	go func() {
		p.end.Told = json.NewDecoder(io.LimitReader(report, 64<<10)).Decode(&p.end.Report) == nil
		_ = report.Close()
		p.end.Err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// RunThrough starts w with all its connections passing through lane; the two
// addresses are those of the servers themselves.
func (w Work) RunThrough(lane *wire.Lane, databaseURL, amqpURL string) (*Process, error) {
	pg, err := postgres.URL(databaseURL, postgres.Change{Address: lane.Postgres(), Params: map[string]string{"sslmode": "disable"}})
	if err != nil {
		return nil, err
	}
	mq, err := broker.URL(amqpURL, broker.Change{Address: lane.AMQP()})
	if err != nil {
		return nil, err
	}
	var services []string
	for _, name := range lane.Services() {
		services = append(services, crash.ServiceEnv(name)+"=http://"+lane.Service(name))
	}
	return w.Run(pg, mq, services...)
}

// Hosts returns where the two servers are, as a proxy wants it.
func Hosts(databaseURL, amqpURL string) (pg, mq string, err error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return "", "", fmt.Errorf("step: read the database's address: %w", err)
	}
	pg = net.JoinHostPort(config.ConnConfig.Host, fmt.Sprint(config.ConnConfig.Port))
	if strings.HasPrefix(config.ConnConfig.Host, "/") {
		pg = fmt.Sprintf("%s/.s.PGSQL.%d", config.ConnConfig.Host, config.ConnConfig.Port)
	}
	uri, err := amqp.ParseURI(amqpURL)
	if err != nil {
		return "", "", fmt.Errorf("step: read the broker's address: %w", err)
	}
	return pg, net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port)), nil
}

// Ask asks the process to stop.
func (p *Process) Ask() { _, _ = io.WriteString(p.stdin, "stop\n") } // one that has ended needs no asking

// Kill ends the process and what it has started, and waits for its end.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// End says how it ended, once [Process.Ended] is closed.
func (p *Process) End() End { return p.end }

// Output is the beginning of what it has printed.
func (p *Process) Output() string { return p.output.String() }

// clipped keeps the beginning of what is written to it.
type clipped struct {
	mu   sync.Mutex
	b    strings.Builder
	lost int
}

// maxOutput is how much of a process's output is kept, in bytes.
const maxOutput = 8 << 10

func (c *clipped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := min(len(p), maxOutput-c.b.Len())
	c.b.Write(p[:keep])
	c.lost += len(p) - keep
	return len(p), nil
}

func (c *clipped) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == 0 {
		return c.b.String()
	}
	return fmt.Sprintf("%s\n… and %d bytes more", c.b.String(), c.lost)
}
