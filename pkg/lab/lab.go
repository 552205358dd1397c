package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/step"
)

// Lab is a cell's connection to what its notebook works with.
type Lab struct {
	ctx   context.Context
	at    *place // nil in a process that a cell has started
	role  *role  // nil in the cell's own process
	calls int    // of Run, Together and Sweep so far

	out    *output
	stderr io.Writer
	exit   func(code int)
	args   []string // to execute the cell's binary again

	db   *pgxpool.Pool
	conn *amqp.Connection

	services map[string]string // by name: where the cell serves it
}

// lockWait is how long a cell waits for a lock. A process of a live session may
// hold one for as long as its reader thinks.
const lockWait = 10 * time.Second

// Open opens the lab of a notebook, named like its file without the ending. It
// does not connect yet.
func Open(notebook string) *Lab {
	l := &Lab{out: newOutput(), stderr: os.Stderr, exit: os.Exit, args: arguments()}
	var stop context.CancelFunc
	l.ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(l.ctx, func() {
		stop() // a second signal ends the process at once
		// What does not heed the context must not keep an interrupted cell alive.
		time.AfterFunc(2*time.Second, func() { l.exit(130) })
	})
	if l.role = roleOf(os.Getenv(roleEnv)); l.role != nil {
		l.role.hush()
		return l
	}
	at, err := findPlace(notebook)
	if err != nil {
		l.fail(err)
	}
	l.at = at
	return l
}

// arguments returns those that bring a process that executes the cell's binary
// again to where Open was called: in a %test cell, to that test alone.
func arguments() []string {
	if flag.Lookup("test.run") == nil {
		return os.Args[1:]
	}
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		name := f.Function[strings.LastIndex(f.Function, ".")+1:]
		if strings.HasSuffix(f.File, "_test.go") && (strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Example")) {
			return []string{"-test.run=^" + regexp.QuoteMeta(name) + "$", "-test.timeout=0"}
		}
		if !more {
			return os.Args[1:]
		}
	}
}

// Context ends when the cell is interrupted.
func (l *Lab) Context() context.Context { return l.ctx }

// fail ends the cell.
func (l *Lab) fail(err error) {
	if l.ctx.Err() != nil {
		fmt.Fprintln(l.stderr, "The cell was interrupted. It can be run again.")
	} else {
		fmt.Fprintln(l.stderr, err)
	}
	l.exit(1)
}

// DB returns a pool of connections to the notebook's database, past the proxy.
// It is opened when first asked for, and lives as long as the cell.
func (l *Lab) DB() *pgxpool.Pool {
	if l.role != nil {
		l.fail(errors.New("lab: DB and Conn are for cells without Run, Together and Sweep: use the connections that your function is given"))
	}
	if l.db == nil {
		db, err := l.at.openDB(l.ctx)
		if err != nil {
			l.fail(err)
		}
		l.db = db
	}
	return l.db
}

// Conn returns a connection to the notebook's virtual host, past the proxy. It
// is opened when first asked for, or when it was closed.
func (l *Lab) Conn() *amqp.Connection {
	if l.role != nil {
		l.DB() // says why not
	}
	if l.conn == nil || l.conn.IsClosed() {
		conn, err := l.at.openConn(l.ctx)
		if err != nil {
			l.fail(err)
		}
		l.conn = conn
	}
	return l.conn
}

// Fresh gives the notebook a new, empty database and virtual host in place of
// its old ones, so that it starts clean however often it is run.
func (l *Lab) Fresh() {
	if l.role != nil {
		return
	}
	if l.db != nil {
		l.db.Close()
		l.db = nil
	}
	l.conn = nil
	if err := l.at.make(l.ctx); err != nil {
		l.fail(err)
	}
	l.DB() // the next cell relies on both
	l.Conn()
	l.out.say("A new database in PostgreSQL and a new virtual host in RabbitMQ, both empty.")
}

// SQL executes statements, separated by semicolons, without arguments; or one
// statement with them.
func (l *Lab) SQL(sql string, args ...any) {
	if l.role != nil {
		return
	}
	if _, err := l.DB().Exec(l.ctx, sql, args...); err != nil {
		if postgres.SQLState(err) == "55P03" { // lock_not_available
			l.fail(fmt.Errorf("lab: %q waits for a lock that somebody holds. If a live session of this notebook stands in the middle of a transaction, let it go on, or run its cell again; then run this one (%w)", step.Shorten(sql, 60), err))
		}
		l.fail(fmt.Errorf("lab: PostgreSQL does not like %q: %w", step.Shorten(sql, 60), err))
	}
}

func (p *place) openDB(ctx context.Context) (*pgxpool.Pool, error) {
	if p.card == nil {
		return nil, p.notFresh()
	}
	db, err := postgres.Open(ctx, p.card.Postgres, func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams["application_name"] = "notebook"
		c.ConnConfig.RuntimeParams["lock_timeout"] = strconv.FormatInt(lockWait.Milliseconds(), 10)
		c.MaxConns = 16
	})
	if err != nil {
		return nil, p.down("PostgreSQL", err)
	}
	return db, nil
}

func (p *place) openConn(ctx context.Context) (*amqp.Connection, error) {
	if p.card == nil {
		return nil, p.notFresh()
	}
	conn, err := broker.Dial(ctx, p.card.AMQP)
	if err != nil {
		return nil, p.down("RabbitMQ", err)
	}
	return conn, nil
}
