package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

func expectSteps(t *testing.T, tr Trace, want ...string) {
	t.Helper()
	if got := steps(tr, nil); !slices.Equal(got, want) {
		t.Errorf("steps\n got: %s\nwant: %s", strings.Join(got, "\n      "), strings.Join(want, "\n      "))
	}
}

// effects returns the effects of all messages that have one.
func effects(tr Trace) (out []string) {
	for _, m := range tr.Messages {
		if m.Effect != NoEffect {
			out = append(out, fmt.Sprintf("%s %s %s", m.Dir, m.Effect, m.Name))
		}
	}
	return out
}

func TestTransactionIsNamed(t *testing.T) {
	table := makeTable(t)
	modes := map[string]pgx.QueryExecMode{
		"cached statements": pgx.QueryExecModeCacheStatement,
		"cached describe":   pgx.QueryExecModeCacheDescribe,
		"describe":          pgx.QueryExecModeDescribeExec,
		"exec":              pgx.QueryExecModeExec,
		"simple":            pgx.QueryExecModeSimpleProtocol,
	}
	id := 0
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, Config{})
			l := newLane(t, p)
			ctx := within(t, 10*time.Second)
			pool := poolPG(t, l, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })
			var want []string
			for range 3 {
				id++
				tx, err := pool.Begin(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Exec(ctx, "INSERT INTO "+table+" VALUES ($1, $2)", id, "x"); err != nil {
					t.Fatal(err)
				}
				var n int
				if err := tx.QueryRow(ctx, "SELECT id FROM "+table+" WHERE id = $1 FOR UPDATE SKIP LOCKED", id).Scan(&n); err != nil {
					t.Fatal(err)
				}
				if err := tx.Commit(ctx); err != nil {
					t.Fatal(err)
				}
				want = append(want, "> BEGIN", "< BEGIN done", "> INSERT "+table, "< INSERT "+table+" done",
					"> SELECT "+table+" FOR UPDATE SKIP LOCKED", "< SELECT "+table+" FOR UPDATE SKIP LOCKED done",
					"> COMMIT", "< COMMIT done")
			}
			tr := p.Trace()
			expectSteps(t, tr, want...)
			got := effects(tr)[:4]
			if want := []string{"> write INSERT " + table, "< done INSERT " + table + " done", "> commit COMMIT", "< done COMMIT done"}; !slices.Equal(got, want) {
				t.Errorf("effects %q, want %q", got, want)
			}
		})
	}
}

func TestImplicitTransaction(t *testing.T) {
	table := makeTable(t)
	p := newProxy(t, Config{})
	c := connectPG(t, newLane(t, p))
	execPG(t, c, "INSERT INTO "+table+" VALUES ($1, 'a')", 1)
	execPG(t, c, "INSERT INTO "+table+" VALUES (2, 'b')") // simple protocol
	execPG(t, c, "INSERT INTO "+table+" VALUES (3, 'b'); UPDATE "+table+" SET body = 'c'")
	var one int
	if err := c.QueryRow(within(t, time.Second), "SELECT 1").Scan(&one); err != nil {
		t.Fatal(err)
	}
	ins := "INSERT " + table
	expectSteps(t, p.Trace(),
		"> "+ins, "> sync commits "+ins, "< "+ins+" done",
		"> "+ins, "< "+ins+" done",
		"> "+ins+"; UPDATE "+table, "< "+ins+" done", "< UPDATE "+table+" done",
		"> SELECT 1", "< SELECT 1 done")
	want := []string{
		"> write " + ins, "> commit sync commits " + ins, "< done " + ins + " done",
		"> commit " + ins, "< done " + ins + " done",
		"> commit " + ins + "; UPDATE " + table, "< done " + ins + " done", "< done UPDATE " + table + " done",
	}
	if got := effects(p.Trace()); !slices.Equal(got, want) {
		t.Errorf("effects\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBatch(t *testing.T) {
	table := makeTable(t)
	p := newProxy(t, Config{})
	c := connectPG(t, newLane(t, p))
	ctx := within(t, 10*time.Second)

	var b pgx.Batch
	b.Queue("BEGIN")
	b.Queue("INSERT INTO "+table+" VALUES ($1, $2)", 1, "a")
	b.Queue("INSERT INTO "+table+" VALUES ($1, $2)", 2, "b")
	b.Queue("COMMIT")
	if err := c.SendBatch(ctx, &b).Close(); err != nil {
		t.Fatal(err)
	}
	ins := "INSERT " + table
	expectSteps(t, p.Trace(), "> BEGIN", "> "+ins, "> "+ins, "> COMMIT",
		"< BEGIN done", "< "+ins+" done", "< "+ins+" done", "< COMMIT done")

	before := len(p.Trace().Messages)
	b = pgx.Batch{}
	b.Queue("INSERT INTO "+table+" VALUES ($1, $2)", 3, "a")
	b.Queue("INSERT INTO "+table+" VALUES ($1, $2)", 3, "again")
	b.Queue("DELETE FROM " + table)
	err := c.SendBatch(ctx, &b).Close()
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "23505" {
		t.Fatalf("got %v, want a violated unique constraint", err)
	}
	tr := p.Trace()
	tr.Messages = tr.Messages[before:]
	got := steps(tr, nil)
	if last := got[len(got)-1]; !strings.HasPrefix(last, "< ERROR 23505 duplicate key") {
		t.Errorf("the last step is %q", last)
	}
	if !slices.Contains(got, "> sync commits 3 writes") {
		t.Errorf("no commit by sync in %q", got)
	}
	// After the error names must still fit.
	execPG(t, c, "DELETE FROM "+table)
	got = steps(p.Trace(), nil)
	if last := got[len(got)-1]; last != "< DELETE "+table+" done" {
		t.Errorf("after an error the last step is %q", last)
	}
}

func TestFailedCommit(t *testing.T) {
	table := makeTable(t)
	p := newProxy(t, Config{})
	c := connectPG(t, newLane(t, p))
	ctx := within(t, 10*time.Second)
	execPG(t, c, "INSERT INTO "+table+" VALUES (1, 'x')")
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO "+table+" VALUES (1, 'x')"); err == nil {
		t.Fatal("a duplicate key was taken")
	}
	if err := tx.Commit(ctx); !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Fatalf("commit of a failed transaction: %v", err)
	}
	tr := p.Trace()
	for _, m := range tr.Messages {
		if m.Name == "COMMIT rolled back" && m.Effect == Done {
			return
		}
	}
	t.Errorf("no COMMIT rolled back in %q", steps(tr, nil))
}

func TestCopyThroughProxy(t *testing.T) {
	table := makeTable(t)
	p := newProxy(t, Config{})
	c := connectPG(t, newLane(t, p))
	ctx := within(t, 20*time.Second)
	const n = 20000
	rows, err := c.CopyFrom(ctx, pgx.Identifier{table}, []string{"id", "body"}, pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		return []any{i, strings.Repeat("x", i%500)}, nil
	}))
	if err != nil || rows != n {
		t.Fatalf("copied %d rows: %v", rows, err)
	}
	expectSteps(t, p.Trace(), "> COPY "+table, "> COPY "+table+" end", "< COPY "+table+" done")
	want := []string{"> write COPY " + table, "> commit COPY " + table + " end", "< done COPY " + table + " done"}
	if got := effects(p.Trace()); !slices.Equal(got, want) {
		t.Errorf("effects %q, want %q", got, want)
	}

	var out strings.Builder
	if _, err := c.PgConn().CopyTo(ctx, &out, "COPY "+table+" TO STDOUT"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "\n"); got != n {
		t.Errorf("copied %d rows out, want %d", got, n)
	}
	// Rows and copy data are one entry per run, so the trace stays small.
	if got := len(p.Trace().Messages); got > 80 {
		t.Errorf("the trace holds %d messages", got)
	}
}

func TestCopyFail(t *testing.T) {
	table := makeTable(t)
	p := newProxy(t, Config{})
	c := connectPG(t, newLane(t, p))
	_, err := c.CopyFrom(within(t, 5*time.Second), pgx.Identifier{table}, []string{"id", "body"},
		pgx.CopyFromFunc(func() ([]any, error) { return nil, errors.New("no more") }))
	if err == nil {
		t.Fatal("a failed copy succeeded")
	}
	execPG(t, c, "DELETE FROM "+table)
	got := steps(p.Trace(), nil)
	if !slices.Contains(got, "> CopyFail") || got[len(got)-1] != "< DELETE "+table+" done" {
		t.Errorf("steps %q", got)
	}
}

func TestListenNotify(t *testing.T) {
	p := newProxy(t, Config{})
	l := newLane(t, p)
	a, b := connectPG(t, l), connectPG(t, l)
	execPG(t, a, "LISTEN outbox")
	execPG(t, b, "SELECT pg_notify('outbox', $1)", "hello")
	n, err := a.WaitForNotification(within(t, 5*time.Second))
	if err != nil || n.Payload != "hello" {
		t.Fatalf("notification %v: %v", n, err)
	}
	got := steps(p.Trace(), nil)
	for _, want := range []string{"> LISTEN outbox", "< LISTEN outbox done", "> SELECT pg_notify", "< notification outbox"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

func TestLargeRows(t *testing.T) {
	table := makeTable(t)
	p := newProxy(t, Config{})
	c := connectPG(t, newLane(t, p))
	ctx := within(t, 20*time.Second)
	big := strings.Repeat("0123456789abcdef", 200_000) // 3.2 MB in one Bind and one DataRow
	execPG(t, c, "INSERT INTO "+table+" VALUES ($1, $2)", 1, big)
	var got string
	if err := c.QueryRow(ctx, "SELECT body FROM "+table).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != big {
		t.Error("a large value was changed on its way")
	}
	execPG(t, c, "INSERT INTO "+table+" VALUES (2, '"+big+"')") // in one Query
	if n := countPG(t, table); n != 2 {
		t.Errorf("%d rows", n)
	}
	expectSteps(t, p.Trace(), "> INSERT "+table, "> sync commits INSERT "+table, "< INSERT "+table+" done",
		"> SELECT "+table, "< SELECT "+table+" done", "> INSERT "+table, "< INSERT "+table+" done")
}

// TestPing checks that a pool's pings do not shift the numbers of steps.
func TestPing(t *testing.T) {
	p := newProxy(t, Config{})
	c := connectPG(t, newLane(t, p))
	execPG(t, c, "SELECT 1")
	if err := c.Ping(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	execPG(t, c, "SELECT 2")
	expectSteps(t, p.Trace(), "> SELECT 1", "< SELECT 1 done", "> SELECT 2", "< SELECT 2 done")
}

func TestPoolsInParallel(t *testing.T) {
	table := makeTable(t)
	p := newProxy(t, Config{})
	l := newLane(t, p)
	pool := poolPG(t, l, func(c *pgxpool.Config) { c.MaxConns = 8 })
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				err := pgx.BeginFunc(context.Background(), pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(context.Background(), "INSERT INTO "+table+" VALUES ($1, $2)", w*1000+i, "x")
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := countPG(t, table); n != 400 {
		t.Errorf("%d rows, want 400", n)
	}
	// In each stream, steps are numbered from 1 without gaps.
	next := make(map[Point]int)
	for _, m := range p.Trace().Messages {
		key := m.Point
		key.Index = 0
		if m.Step {
			next[key]++
		}
		if m.Index != next[key] {
			t.Fatalf("%s has index %d, want %d", m.Name, m.Index, next[key])
		}
	}
}
