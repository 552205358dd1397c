package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/state"
)

// The test binary is also the program under test: programEnv names which.
const programEnv = "CRASH_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if name := os.Getenv(programEnv); name != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := programs[name](ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// programs move the rows of todo to done. Each does it in its own way.
var programs = map[string]func(context.Context) error{
	"busy": busy,
	"careful": func(ctx context.Context) error {
		return move(ctx, func(conn *pgx.Conn, id int) error {
			return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "INSERT INTO done VALUES ($1)", id); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, "DELETE FROM todo WHERE id = $1", id)
				return err
			})
		})
	},
	"hasty": func(ctx context.Context) error {
		return move(ctx, func(conn *pgx.Conn, id int) error {
			if _, err := conn.Exec(ctx, "INSERT INTO done VALUES ($1)", id); err != nil {
				return err
			}
			_, err := conn.Exec(ctx, "DELETE FROM todo WHERE id = $1", id)
			return err
		})
	},
	"charges":            charges(false),
	"charges with a key": charges(true),
	"idle":               func(context.Context) error { select {} },
	"ends":               func(context.Context) error { return nil },
	"spins": func(context.Context) error {
		for x := 0; ; x++ {
			_ = x
		}
	},
	"floods": func(context.Context) error {
		for {
			fmt.Println("the same line again and again, to fill every buffer on the way")
		}
	},
	"eats": func(context.Context) error {
		var all [][]byte
		for {
			b := make([]byte, 16<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
			time.Sleep(time.Duration(len(all)) * time.Millisecond / 4)
		}
	},
}

// move takes one row of todo after the other until none is left, and waits.
func move(ctx context.Context, one func(*pgx.Conn, int) error) error {
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for {
		var id int
		err := conn.QueryRow(ctx, "SELECT id FROM todo ORDER BY id LIMIT 1").Scan(&id)
		switch {
		case err == pgx.ErrNoRows:
			select {}
		case err != nil:
			return err
		}
		if err := one(conn, id); err != nil {
			return err
		}
	}
}

// moving is the scenario: three rows to move.
type moving struct {
	crash.Quiet
	arena *crash.Arena
	first int
	done  map[int]int
	todo  int
}

func movingSpec() *crash.Spec {
	return &crash.Spec{
		ID:     "test/moving",
		Schema: "CREATE TABLE public.todo (id int); CREATE TABLE public.done (id int);",
		Grants: "GRANT ALL ON public.todo, public.done TO {{answer}};",
		Invariants: []crash.Invariant{{
			Name: "moved-once", Says: "Each row is moved once.",
			Expected: "Both statements in one transaction.",
			Hints:    []string{"What if the program dies between the two statements?"},
		}},
		Faults: []crash.Fault{crash.Kill, crash.Cut, crash.Blackhole, crash.FailStatement, crash.Shutdown},
		Scenario: func(a *crash.Arena, rng *rand.Rand, _ string) (crash.Scenario, error) {
			return &moving{arena: a, first: rng.IntN(1 << 20)}, nil
		},
	}
}

func (m *moving) Reset(ctx context.Context) error {
	_, err := m.arena.DB.Exec(ctx, fmt.Sprintf("DELETE FROM public.todo; DELETE FROM public.done; INSERT INTO public.todo SELECT generate_series(%d, %d)", m.first, m.first+2))
	return err
}

func (m *moving) Progress() int { return 3 - m.todo }

func (m *moving) Done(ctx context.Context) (bool, error) {
	err := m.arena.DB.QueryRow(ctx, "SELECT count(*) FROM public.todo").Scan(&m.todo)
	return m.todo == 0, err
}

func (m *moving) read(ctx context.Context) error {
	rows, err := m.arena.DB.Query(ctx, "SELECT id FROM public.done")
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	m.done = map[int]int{}
	for _, id := range ids {
		m.done[id-m.first]++
	}
	return err
}

func (m *moving) State(ctx context.Context) (string, error) {
	err := m.read(ctx)
	return fmt.Sprint(m.todo, m.done), err
}

func (m *moving) Check(ctx context.Context, _ int) ([]crash.Violation, error) {
	if err := m.read(ctx); err != nil {
		return nil, err
	}
	for id, n := range m.done {
		if n != 1 {
			return []crash.Violation{{Invariant: "moved-once", Detail: fmt.Sprintf("row %d was moved %d times", id+1, n)}}, nil
		}
	}
	return nil, nil
}

func program(t testing.TB, name string) crash.Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return crash.Program{Path: self, Env: []string{programEnv + "=" + name}}
}

func judge(t testing.TB, name string, o crash.Options) crash.Verdict {
	t.Helper()
	servers, err := state.LoadServers()
	if err != nil {
		t.Fatal(err)
	}
	v, err := crash.Judge(t.Context(), servers, movingSpec(), program(t, name), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRightProgramPassesEveryMode(t *testing.T) {
	for _, mode := range []crash.Mode{crash.Quick, crash.Full, crash.Unpruned} {
		v := judge(t, "careful", crash.Options{Mode: mode, Seed: 1})
		if v.Verdict != crash.Pass {
			t.Fatalf("%s: %s %s %+v", mode, v.Verdict, v.Error, v.Failure)
		}
		unreached := 0
		for _, p := range v.Points {
			if p.Outcome == crash.Unreached {
				unreached++
			}
		}
		if len(v.Points) < 10 || unreached*20 > len(v.Points) {
			t.Errorf("%s: %d points, %d of them not reached", mode, len(v.Points), unreached)
		}
		if mode == crash.Full {
			twice := 0
			for _, p := range v.Points {
				if p.Then != "" {
					twice++
				}
			}
			if twice == 0 {
				t.Error("full did not crash during a recovery")
			}
		}
	}
}

func TestWrongProgramFailsEveryModeAndTheScheduleReplays(t *testing.T) {
	for _, mode := range []crash.Mode{crash.Quick, crash.Full, crash.Unpruned} {
		v := judge(t, "hasty", crash.Options{Mode: mode, Seed: 2})
		if v.Verdict != crash.Fail || v.Failure == nil || v.Failure.Invariant != "moved-once" {
			t.Fatalf("%s: %s %s %+v", mode, v.Verdict, v.Error, v.Failure)
		}
		schedule, err := crash.ParseSchedule(v.Failure.Schedule)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			again := judge(t, "hasty", crash.Options{Seed: 2, Schedule: schedule})
			if again.Verdict != crash.Fail || again.Failure.Detail != v.Failure.Detail || again.Failure.Message != v.Failure.Message {
				t.Errorf("%s: the replay of %s differs:\n%q\n%q", mode, schedule, again.Failure.Story, v.Failure.Story)
			}
		}
	}
}

func TestProgramsThatDoNotFinishFailInBoundedTime(t *testing.T) {
	for _, name := range []string{"idle", "ends", "spins", "floods", "eats"} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			v := judge(t, name, crash.Options{Seed: 3, Workers: 1})
			if v.Verdict != crash.Fail || v.Failure == nil || v.Failure.Invariant != crash.AllWorkDone {
				t.Errorf("%s %s %+v", v.Verdict, v.Error, v.Failure)
			}
			if took := time.Since(began); took > 2*time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestServersThatCannotBeReachedMakeItUnjudged(t *testing.T) {
	servers := state.Servers{Postgres: "postgres://nobody@127.0.0.1:1/none", AMQP: "amqp://127.0.0.1:1/", Management: "http://127.0.0.1:1"}
	v, err := crash.Judge(t.Context(), servers, movingSpec(), program(t, "careful"), crash.Options{})
	if err != nil || v.Verdict != crash.Unjudged || v.Error == "" {
		t.Errorf("verdict %q, %q, error %v", v.Verdict, v.Error, err)
	}
}

func TestCancelledJudgeReturnsAnError(t *testing.T) {
	servers, err := state.LoadServers()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := crash.Judge(ctx, servers, movingSpec(), program(t, "idle"), crash.Options{}); err == nil {
		t.Error("no error")
	}
}

func TestTemporaryFolderThatOthersCannotEnter(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", closed)
	if v := judge(t, "careful", crash.Options{Seed: 4}); v.Verdict != crash.Pass {
		t.Errorf("%s %s", v.Verdict, v.Error)
	}
}

func TestParseSchedule(t *testing.T) {
	const text = "kill@p1.pg1>5,cut@p2.amqp1<3"
	s, err := crash.ParseSchedule(text)
	if err != nil || s.String() != text {
		t.Errorf("%v, %v", s, err)
	}
	for _, bad := range []string{"kill", "melt@p1.pg1>5", "kill@here", "kill@p1.pg1>x"} {
		if _, err := crash.ParseSchedule(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
