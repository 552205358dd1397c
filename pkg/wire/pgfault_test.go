package wire

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func expectCode(t *testing.T, err error, code string) {
	t.Helper()
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != code {
		t.Errorf("got %v, want an error with code %s", err, code)
	}
}

func TestFailStatement(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			table := makeTable(t)
			fail := false
			decide := func(m *Message) Action {
				if fail && m.Dir == ToServer && m.Step && m.Type != "Sync" {
					fail = false
					return Action{Kind: Fail, SQLState: "40P01"}
				}
				return Action{}
			}
			c := connectPG(t, newLane(t, newProxy(t, Config{Decide: decide})))
			ctx := within(t, 10*time.Second)
			insert := func(id int, failing bool) {
				t.Helper()
				fail = failing
				_, err := c.Exec(ctx, "INSERT INTO "+table+" VALUES ($1, $2)", mode, id, "x")
				if failing {
					expectCode(t, err, "40P01")
				} else if err != nil {
					t.Error(err)
				}
			}
			for i := range 6 { // the statement is prepared in between
				insert(i, i%2 == 0)
			}
			// Within a transaction the block has failed, and can be rolled back.
			tx, err := c.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			insert(100, false)
			insert(101, true)
			if s := c.PgConn().TxStatus(); s != 'E' {
				t.Errorf("the transaction's state is %c", s)
			}
			if _, err := tx.Exec(ctx, "SELECT 1"); err == nil {
				t.Error("a failed transaction went on")
			}
			if err := tx.Rollback(ctx); err != nil {
				t.Fatal(err)
			}
			insert(102, false)
			if n := countPG(t, table); n != 4 {
				t.Errorf("%d rows, want 4", n)
			}
		})
	}
}

// TestFailCommit checks that after a failed COMMIT the transaction is over.
func TestFailCommit(t *testing.T) {
	table := makeTable(t)
	for i, commit := range []func(context.Context, *pgx.Conn) error{
		func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, "COMMIT")
			return err
		},
		func(ctx context.Context, c *pgx.Conn) error { // extended protocol
			return c.PgConn().ExecParams(ctx, "COMMIT", nil, nil, nil, nil).Read().Err
		},
	} {
		decide, hit := at(ToServer, "COMMIT", Action{Kind: Fail})
		p := newProxy(t, Config{Decide: decide})
		c := connectPG(t, newLane(t, p))
		ctx := within(t, 5*time.Second)
		execPG(t, c, "BEGIN")
		execPG(t, c, "INSERT INTO "+table+" VALUES ($1, 'x')", i)
		expectCode(t, commit(ctx, c), "40001")
		await(t, "the fault", hit)
		if s := c.PgConn().TxStatus(); s != 'I' {
			t.Errorf("after a failed COMMIT the state is %c", s)
		}
		execPG(t, c, "BEGIN")
		execPG(t, c, "INSERT INTO "+table+" VALUES ($1, 'x')", 100+i)
		execPG(t, c, "COMMIT")
		if n := countPG(t, table); n != i+1 {
			t.Errorf("%d rows, want %d", n, i+1)
		}
		steps := steps(p.Trace(), nil)
		if last := steps[len(steps)-1]; last != "< COMMIT done" {
			t.Errorf("the last step is %q: names no longer fit", last)
		}
	}
}

func TestFailInBatch(t *testing.T) {
	table := makeTable(t)
	n := 0
	decide := func(m *Message) Action {
		if m.Type == "Execute" && m.Effect == Write {
			if n++; n == 2 {
				return Action{Kind: Fail, SQLState: "bad"}
			}
		}
		return Action{}
	}
	p := newProxy(t, Config{Decide: decide})
	c := connectPG(t, newLane(t, p))
	ctx := within(t, 5*time.Second)
	batch := func() *pgx.Batch {
		b := &pgx.Batch{}
		for i := range 3 {
			b.Queue("INSERT INTO "+table+" VALUES ($1, 'x')", i)
		}
		return b
	}
	expectCode(t, c.SendBatch(ctx, batch()).Close(), "40001")
	if n := countPG(t, table); n != 0 {
		t.Errorf("%d rows of a failed batch are there", n)
	}
	if err := c.SendBatch(ctx, batch()).Close(); err != nil {
		t.Error(err)
	}
	if n := countPG(t, table); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
}

func TestShutdownPostgres(t *testing.T) {
	table := makeTable(t)
	for i, name := range []string{"COMMIT", "COMMIT done"} {
		dir := ToServer
		if i == 1 {
			dir = ToClient
		}
		decide, hit := at(dir, name, Action{Kind: Shutdown})
		l := newLane(t, newProxy(t, Config{Decide: decide}))
		c := connectPG(t, l)
		execPG(t, c, "BEGIN")
		execPG(t, c, "INSERT INTO "+table+" VALUES (1, 'x')")
		_, err := c.Exec(within(t, 5*time.Second), "COMMIT")
		await(t, "the shutdown", hit)
		expectCode(t, err, "57P01")
		closeLane(t, l)
		if n := countPG(t, table); n != i {
			t.Errorf("shutdown at %s: %d rows, want %d", name, n, i)
		}
	}
}

func TestCancel(t *testing.T) {
	p := newProxy(t, Config{})
	c := connectPG(t, newLane(t, p))
	result := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "SELECT pg_sleep(30)")
		result <- err
	}()
	direct := connectPG(t, nil)
	for asleep := 0; asleep == 0; { // a cancel that comes before the statement is ignored
		err := direct.QueryRow(within(t, 5*time.Second), "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event = 'PgSleep'", testName).Scan(&asleep)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.PgConn().CancelRequest(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	expectCode(t, await(t, "the cancelled statement", result), "57014")
	for _, m := range p.Trace().Messages {
		if m.Type == "CancelRequest" && m.Conn == 0 && !m.Step {
			return
		}
	}
	t.Error("no cancel request in the trace")
}

func TestTLSIsRefused(t *testing.T) {
	l := newLane(t, newProxy(t, Config{}))
	c, err := pgx.Connect(within(t, 5*time.Second), withQuery(pgThrough(l), "sslmode=prefer"))
	if err != nil {
		t.Fatalf("sslmode=prefer: %v", err)
	}
	_ = c.Close(context.Background())
	if _, err := pgx.Connect(within(t, 5*time.Second), withQuery(pgThrough(l), "sslmode=require")); err == nil {
		t.Error("sslmode=require connected")
	}
}
