package exercise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/crash"
)

// RoleEnv is set, to the exercise's id, in the environment of a process under
// test.
const RoleEnv = "CRASHCOURSE_ROLE"

// AddrEnv is set, in the environment of a process under test, to an address on
// which it may listen: see [Process.Addr].
const AddrEnv = "CRASHCOURSE_ADDR"

// PoolSize is how many connections the pool has that an answer is given, on
// every machine.
const PoolSize = 4

// ErrNotImplemented is what a starter answer returns.
var ErrNotImplemented = errors.New("not implemented yet: write your answer here")

// Handler runs the answer once, with the argument that the judge sent.
type Handler func(ctx context.Context, p *Process, arg json.RawMessage) error

// Process is what a process under test has: sessions with the servers, opened
// when first asked for and shared by all calls.
type Process struct {
	mu     sync.Mutex
	pool   *pgxpool.Pool
	conn   *amqp.Connection
	client *http.Client
}

// Addr is an address, such as 127.0.0.1:23456, on which the process may listen for
// clients. The judge knows it, and the process that replaces this one has the same.
func (p *Process) Addr() string { return os.Getenv(AddrEnv) }

// errServer marks an error that came before the answer was called.
var errServer = errors.New("a server could not be reached")

// Postgres returns the pool that answers are given.
func (p *Process) Postgres(ctx context.Context) (*pgxpool.Pool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pool == nil {
		config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
		if err != nil {
			return nil, fmt.Errorf("exercise: read DATABASE_URL: %w", err)
		}
		config.MaxConns = PoolSize
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			return nil, fmt.Errorf("exercise: %w: PostgreSQL: %w", errServer, err)
		}
		p.pool = pool
	}
	return p.pool, nil
}

// Broker returns the connection that answers are given.
func (p *Process) Broker() (*amqp.Connection, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		conn, err := amqp.Dial(os.Getenv("AMQP_URL"))
		if err != nil {
			return nil, fmt.Errorf("exercise: %w: RabbitMQ: %w", errServer, err)
		}
		p.conn = conn
	}
	return p.conn, nil
}

// Service returns what answers call a service with: a client, the same for all
// services, and the base URL of the one of that name, such as
// http://127.0.0.1:23456. It does not connect. The client has no timeout: to have
// one is the answer's business.
func (p *Process) Service(name string) (client *http.Client, url string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if url = os.Getenv(crash.ServiceEnv(name)); url == "" {
		return nil, "", fmt.Errorf("exercise: %w: %s is not set: the exercise has no service %s", errServer, crash.ServiceEnv(name), name)
	}
	if p.client == nil {
		// Bodies are shown as they are: nothing asks for a compressed one.
		p.client = &http.Client{Transport: &http.Transport{DisableCompression: true}}
	}
	return p.client, url, nil
}

// serve is the life of a process under test: it calls h as the judge asks, until
// it is told to stop or a call without successor returns.
func serve(h Handler) {
	control := os.NewFile(3, "control")
	out := json.NewEncoder(control)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	calls := make(chan crash.Call)
	go func() {
		defer close(calls)
		in := bufio.NewReader(control)
		for {
			line, err := in.ReadBytes('\n')
			var c crash.Call
			if len(line) > 0 && json.Unmarshal(line, &c) == nil {
				if c.Stop {
					stop()
					return
				}
				calls <- c
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					fmt.Fprintln(os.Stderr, "exercise: the judge's channel broke:", err)
				}
				os.Exit(2) // the judge has gone: nobody is left to work for
			}
		}
	}()

	p := &Process{}
	for c := range calls {
		err := h(ctx, p, c.Arg)
		r := crash.Reply{ID: c.ID}
		if err != nil {
			r.Error = err.Error()
			r.NotImplemented = errors.Is(err, ErrNotImplemented)
			r.Infrastructure = errors.Is(err, errServer)
			fmt.Fprintln(os.Stderr, "the answer returned:", err)
		}
		if err := out.Encode(r); err != nil {
			os.Exit(2)
		}
		if c.Last {
			break
		}
	}
}
