package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/step"
)

// roleEnv is set in the environment of a process that a cell has started, to
// what it is there for.
const roleEnv = "CRASHCOURSE_LAB"

// role is what a process is there for: the nth function of the nth call of Run,
// Together or Sweep in its cell.
type role struct {
	call, work int
	stdout     *os.File // what standard output was
}

func (r role) String() string { return fmt.Sprintf("%d.%d", r.call, r.work) }

// roleOf reads what String writes. Empty is the cell's own process.
func roleOf(s string) *role {
	var r role
	if n, _ := fmt.Sscanf(s, "%d.%d", &r.call, &r.work); n != 2 {
		return nil
	}
	return &r
}

// hush silences the process on its way through the cell to its own part.
func (r *role) hush() {
	r.stdout = os.Stdout
	if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
		os.Stdout = null
	}
}

// run is the rest of the life of a process that Run has started.
func (r *role) run(work Work) {
	os.Stdout = r.stdout
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var stopped atomic.Bool
	go func() {
		// Standard input carries one line, stop, and ends when the cell does.
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil || strings.TrimSpace(line) != "stop" {
			os.Exit(2)
		}
		stopped.Store(true)
		cancel()
	}()
	err := r.perform(ctx, work)
	var said step.Report
	if err != nil && !stopped.Load() {
		said.Error = err.Error()
	}
	_ = json.NewEncoder(os.NewFile(step.ReportFD, "report")).Encode(said) // nobody is left to tell otherwise
	os.Exit(0)
}

// perform calls the function with connections of its own.
func (r *role) perform(ctx context.Context, work Work) error {
	db, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return fmt.Errorf("lab: make a pool: %w", err)
	}
	conn, err := broker.Dial(ctx, os.Getenv("AMQP_URL"))
	if err != nil {
		return err
	}
	return work(ctx, db, conn)
}

// judged is the rest of the life of a process that a judge has started.
func (r *role) judged(h exercise.Handler) {
	os.Stdout = r.stdout
	exercise.Serve(h)
	os.Exit(0)
}
