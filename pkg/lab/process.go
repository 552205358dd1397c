package lab

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

// process is a process of a run. The run's goroutine owns it.
type process struct {
	lane   *wire.Lane
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output *clipped
	ended  chan struct{}
	over   bool
	end    string // how it ended, to follow "The process"
}

// addresses are those of the real servers, for the proxy.
func (p *place) addresses() (pg, mq string, err error) {
	config, err := pgxpool.ParseConfig(p.card.Postgres)
	if err != nil {
		return "", "", fmt.Errorf("lab: read the database's address: %w", err)
	}
	pg = net.JoinHostPort(config.ConnConfig.Host, fmt.Sprint(config.ConnConfig.Port))
	if strings.HasPrefix(config.ConnConfig.Host, "/") {
		pg = fmt.Sprintf("%s/.s.PGSQL.%d", config.ConnConfig.Host, config.ConnConfig.Port)
	}
	uri, err := amqp.ParseURI(p.card.AMQP)
	if err != nil {
		return "", "", fmt.Errorf("lab: read the broker's address: %w", err)
	}
	return pg, net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port)), nil
}

// start starts the process of work number i.
func (r *run) start(i int) (*process, error) {
	lane, err := r.proxy.Lane()
	if err != nil {
		return nil, err
	}
	path, err := self()
	if err != nil {
		return nil, err
	}
	at := r.lab.at.card
	pg, err := postgres.URL(at.Postgres, postgres.Change{Address: lane.Postgres(), Params: map[string]string{"sslmode": "disable"}})
	if err != nil {
		return nil, err
	}
	mq, err := broker.URL(at.AMQP, broker.Change{Address: lane.AMQP()})
	if err != nil {
		return nil, err
	}
	p := &process{lane: lane, output: &clipped{}, ended: make(chan struct{}), end: "returned nil"}
	p.cmd = exec.Command(path, r.lab.args...)
	p.cmd.Env = append(os.Environ(), roleEnv+"="+role{call: r.lab.calls, work: i}.String(), "DATABASE_URL="+pg, "AMQP_URL="+mq)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for the cell
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	result, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	p.cmd.ExtraFiles = []*os.File{theirs}
	err = p.cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = result.Close()
		return nil, fmt.Errorf("lab: start a process of the cell: %w", err)
	}
	go func() {
		var said report
		told := json.NewDecoder(result).Decode(&said) == nil
		_ = result.Close()
		err := p.cmd.Wait()
		close(p.ended)
		r.events <- func() { r.ended(p, told, said, err) }
	}()
	return p, nil
}

// ended deals with a process that has ended by itself.
func (r *run) ended(p *process, told bool, said report, err error) {
	switch {
	case p.over: // it was killed, and that has been dealt with
		return
	case r.hit(p, crash.Kill): // it got past a message that was held back, and ended while that waited for its kill
		r.bury(p.lane.Process())
		return
	case strings.HasPrefix(p.end, "had nothing"): // it was asked to
	case said.Error != "":
		p.end = "returned an error: " + said.Error
	case !told:
		p.end = fmt.Sprintf("ended before its function returned (%v)", err)
	}
	r.close(p)
}

// ask asks the process to stop.
func (p *process) ask() { _, _ = io.WriteString(p.stdin, "stop\n") } // one that has ended needs no asking

// kill ends the process and what it has started, and waits for its end.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

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

// WriteString adds a remark of our own.
func (c *clipped) WriteString(s string) { _, _ = c.Write([]byte(s)) }

func (c *clipped) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == 0 {
		return c.b.String()
	}
	return fmt.Sprintf("%s\n… and %d bytes more", c.b.String(), c.lost)
}
