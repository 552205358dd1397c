package terminal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/servertest"
	"crashcourse/pkg/step"
)

const workEnv = "TERMINAL_TEST_WORK"

// TestMain is also the program that is stepped through.
func TestMain(m *testing.M) {
	work := map[string]func(context.Context) error{"place": place, "prepare": prepare}[os.Getenv(workEnv)]
	if work == nil {
		os.Exit(m.Run())
	}
	var said step.Report
	if err := work(context.Background()); err != nil {
		said.Error = err.Error()
	}
	_ = json.NewEncoder(os.NewFile(step.ReportFD, "report")).Encode(said)
	os.Exit(0)
}

// place stores an order, and then keeps its process alive.
func place(ctx context.Context) error {
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	for i := range 3 {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO orders (id, pid) VALUES ($1, $2)", fmt.Sprintf("o-%d", i), os.Getpid())
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func prepare(ctx context.Context) error {
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close(ctx)
	_, err = db.Exec(ctx, "CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, pid int); DELETE FROM orders")
	return err
}

// screen is a model whose commands run beside it, as a [tea.Program] has them.
type screen struct {
	t    *testing.T
	m    *Model
	msgs chan tea.Msg
	quit bool
}

func (s *screen) start(cmd tea.Cmd) {
	if cmd != nil {
		go func() { s.msgs <- cmd() }()
	}
}

// until takes in messages until the screen says something.
func (s *screen) until(what ...string) {
	s.t.Helper()
	s.wait(strings.Join(what, " and "), func() bool {
		shown := strings.Join(strings.Fields(shown(s.m)), " ")
		for _, w := range what {
			if !strings.Contains(shown, w) {
				return false
			}
		}
		return true
	})
}

func (s *screen) wait(what string, ok func() bool) {
	s.t.Helper()
	late := time.After(30 * time.Second)
	for !ok() {
		select {
		case msg := <-s.msgs:
			if _, quits := msg.(tea.QuitMsg); quits {
				s.quit = true
				continue
			}
			_, cmd := s.m.Update(msg)
			s.start(cmd)
		case <-late:
			s.t.Fatalf("waiting for %s:\n%s", what, shown(s.m))
		}
	}
}

func (s *screen) press(keys ...string) {
	s.t.Helper()
	for _, k := range keys {
		s.start(press(s.t, s.m, k))
		s.wait("the command to end", func() bool { return s.m.live == nil || s.m.live.busy == "" })
	}
}

// pass lets messages pass, and waits for what comes of it.
func (s *screen) pass(key string) {
	s.t.Helper()
	n := len(s.m.list.Steps)
	s.press(key)
	s.wait("the next message", func() bool {
		return len(s.m.list.Steps) > n && s.m.live.state != step.Running || s.m.live.state == step.Ended
	})
}

// TestLiveSession steps through a real program on real servers.
func TestLiveSession(t *testing.T) {
	at := servertest.New(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	work := func(name string) step.Work {
		return step.Work{Name: name, Path: self, Env: append(os.Environ(), workEnv+"="+name)}
	}
	s, err := step.Start(t.Context(), step.Config{Title: "place an order", Works: []step.Work{work("place")}, Prepare: work("prepare"),
		Postgres: at.DatabaseURL, AMQP: at.AMQPURL})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close("")
	c := &screen{t: t, m: NewLive(t.Context(), s), msgs: make(chan tea.Msg, 16)}
	c.start(c.m.Init())
	c.until("place an order", "waits for you", "[table] orders: empty")

	c.pass("e")
	c.until("INSERT orders from place to PostgreSQL waits for you")
	c.pass("space")
	c.until("1 write is not committed yet", "[table] orders: empty")
	c.pass("e")
	c.until("COMMIT from place to PostgreSQL waits for you")
	c.pass("space")
	c.until("[table] orders: 1 row, +1 new", "+ o-0", "committed")

	var pid int
	if err := at.DB.QueryRow(t.Context(), "SELECT pid FROM orders").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	c.press("c")
	c.until("✗ killed at", stateCrashed)
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the crashed process still lives: %v", err)
	}
	c.press("x")
	c.until("That did not work: nothing waits: the process was crashed; restart it.")
	c.press("r")
	c.until("○ place starts again", "waits for you")

	// Back, and anew up to there.
	c.press("home", "right", "right", "right")
	c.until("place sends INSERT orders to PostgreSQL")
	c.press("w")
	c.until("waits for you", "[table] orders: empty")
	c.press("f")
	c.until("That did not work: fail cannot strike before INSERT orders done.")

	for range 100 {
		if c.m.live.state == step.Ended {
			break
		}
		c.pass("space")
	}
	c.until(stateEnded, "■ place returned nil")

	c.press("q")
	c.wait("the end", func() bool { return c.quit })
	if err := s.Do(t.Context(), step.Command{Act: step.Pass}); err == nil {
		t.Error("the session goes on after its screen")
	}
}
