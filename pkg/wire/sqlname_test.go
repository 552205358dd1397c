package wire

import "testing"

var sqlCases = []struct {
	sql     string
	name    string
	outside Effect // as a Query outside a block
	inside  Effect // as a Query in a block
}{
	{"begin", "BEGIN", NoEffect, NoEffect},
	{"BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN", NoEffect, NoEffect},
	{"START TRANSACTION READ ONLY", "BEGIN", NoEffect, NoEffect},
	{"commit", "COMMIT", Commit, Commit},
	{"END;", "COMMIT", Commit, Commit},
	{"COMMIT AND CHAIN", "COMMIT AND CHAIN", Commit, Commit},
	{"PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION", Commit, Commit},
	{"COMMIT PREPARED 'x'", "COMMIT PREPARED", Commit, Commit},
	{"rollback", "ROLLBACK", Rollback, Rollback},
	{"ABORT", "ROLLBACK", Rollback, Rollback},
	{"ROLLBACK TO SAVEPOINT a", "ROLLBACK TO a", NoEffect, NoEffect},
	{"savepoint sp_1", "SAVEPOINT sp_1", NoEffect, NoEffect},
	{"RELEASE SAVEPOINT sp_1", "RELEASE sp_1", NoEffect, NoEffect},
	{"INSERT INTO outbox (a) VALUES ($1)", "INSERT outbox", Commit, Write},
	{`insert into "public"."outbox" values (1)`, "INSERT outbox", Commit, Write},
	{"UPDATE ONLY outbox SET a = 1", "UPDATE outbox", Commit, Write},
	{"UPDATE outbox SET published_at = now() WHERE seq = ANY($1)", "UPDATE outbox", Commit, Write},
	{"DELETE FROM outbox WHERE seq IN (SELECT seq FROM done)", "DELETE outbox", Commit, Write},
	{"MERGE INTO stock USING x ON a = b WHEN MATCHED THEN DELETE", "MERGE stock", Commit, Write},
	{"-- the oldest first\nSELECT seq, payload FROM outbox o WHERE x IS NULL ORDER BY seq LIMIT 10 FOR UPDATE SKIP LOCKED",
		"SELECT outbox FOR UPDATE SKIP LOCKED", NoEffect, NoEffect},
	{"SELECT 1 FROM a.outbox FOR NO KEY UPDATE OF outbox NOWAIT", "SELECT outbox FOR NO KEY UPDATE NOWAIT", NoEffect, NoEffect},
	{"SELECT * FROM (SELECT * FROM outbox FOR SHARE) x", "SELECT outbox FOR SHARE", NoEffect, NoEffect},
	{"/* why /* not */ */ select * from t", "SELECT t", NoEffect, NoEffect},
	{"(SELECT 1 FROM a) UNION (SELECT 2 FROM b)", "SELECT a", NoEffect, NoEffect},
	{"SELECT extract(year FROM x), (SELECT max(y) FROM inner_t) FROM t", "SELECT t", NoEffect, NoEffect},
	{"SELECT 1", "SELECT 1", NoEffect, NoEffect},
	{"SELECT $1::int", "SELECT $1::int", NoEffect, NoEffect},
	{"SELECT 'a;b', \"c;d\"", "SELECT 'a;b', \"c;d\"", NoEffect, NoEffect},
	{"select pg_try_advisory_xact_lock(42)", "SELECT pg_try_advisory_xact_lock", NoEffect, NoEffect},
	{"SELECT pg_notify('outbox', $1)", "SELECT pg_notify", Commit, Write},
	{"SELECT pg_notify('outbox', id::text) FROM outbox", "SELECT pg_notify", Commit, Write},
	{"SELECT place_order($1, $2)", "SELECT place_order", Commit, Write},
	{"SELECT now()", "SELECT now", NoEffect, NoEffect},
	{"SELECT coalesce(max(a), 0) FROM t", "SELECT t", NoEffect, NoEffect},
	{"SELECT * INTO TEMP copy FROM t", "SELECT INTO copy", Commit, Write},
	{"SELECT * FROM generate_series(1, 10)", "SELECT generate_series", NoEffect, NoEffect},
	{"WITH n AS (SELECT seq FROM outbox FOR UPDATE SKIP LOCKED) UPDATE outbox o SET a = 1 FROM n", "UPDATE outbox", Commit, Write},
	{"WITH d AS (DELETE FROM outbox RETURNING *) SELECT * FROM d ORDER BY seq", "DELETE outbox", Commit, Write},
	{"WITH d AS (DELETE FROM outbox RETURNING *), i AS (SELECT 1) INSERT INTO log SELECT * FROM d", "INSERT log", Commit, Write},
	{"WITH d AS (SELECT * FROM t) SELECT * FROM d", "SELECT d", NoEffect, NoEffect},
	{"VALUES (1), (2)", "VALUES", NoEffect, NoEffect},
	{"TABLE outbox", "TABLE outbox", NoEffect, NoEffect},
	{"LISTEN outbox", "LISTEN outbox", NoEffect, NoEffect},
	{"UNLISTEN *", "UNLISTEN", NoEffect, NoEffect},
	{"NOTIFY outbox, 'x'", "NOTIFY outbox", Commit, Write},
	{"COPY outbox (a, b) FROM STDIN BINARY", "COPY outbox", Write, Write},
	{`copy "outbox" ( "id" ) from stdin binary;`, "COPY outbox", Write, Write},
	{"COPY (SELECT * FROM outbox) TO STDOUT", "COPY outbox", NoEffect, NoEffect},
	{"COPY outbox FROM '/tmp/x'", "COPY outbox", Commit, Write},
	{"TRUNCATE TABLE outbox, other", "TRUNCATE outbox", Commit, Write},
	{"CREATE TABLE IF NOT EXISTS s.outbox (id int)", "CREATE TABLE outbox", Commit, Write},
	{"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)", "CREATE INDEX i", Commit, Write},
	{"CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END", "CREATE FUNCTION f", Commit, Write},
	{"CREATE FUNCTION f() RETURNS trigger AS $x$ BEGIN; RETURN NEW; END $x$ LANGUAGE plpgsql", "CREATE FUNCTION f", Commit, Write},
	{"DROP TABLE IF EXISTS outbox CASCADE", "DROP TABLE outbox", Commit, Write},
	{"ALTER TABLE ONLY outbox ADD x int", "ALTER TABLE outbox", Commit, Write},
	{"LOCK TABLE outbox IN SHARE MODE", "LOCK outbox", NoEffect, NoEffect},
	{"SET LOCAL statement_timeout = 1000", "SET statement_timeout", NoEffect, NoEffect},
	{"PREPARE p AS INSERT INTO t VALUES (1)", "PREPARE p", NoEffect, NoEffect},
	{"EXECUTE p(1)", "EXECUTE p", Commit, Write},
	{"DEALLOCATE PREPARE p", "DEALLOCATE p", NoEffect, NoEffect},
	{"DO $$ BEGIN PERFORM 1; END $$", "DO", Commit, Write},
	{"EXPLAIN SELECT * FROM t", "EXPLAIN SELECT t", NoEffect, NoEffect},
	{"EXPLAIN (ANALYZE) DELETE FROM t", "EXPLAIN DELETE t", Commit, Write},
	{"EXPLAIN DELETE FROM t", "EXPLAIN DELETE t", NoEffect, NoEffect},
	{"INSERT INTO a VALUES (1); INSERT INTO b VALUES (2);", "INSERT a; INSERT b", Commit, Write},
	{"BEGIN; INSERT INTO a VALUES (1); COMMIT", "BEGIN; INSERT a; COMMIT", Commit, Commit},
	{"BEGIN; INSERT INTO a VALUES (1)", "BEGIN; INSERT a", Write, Write},
	{"BEGIN; SELECT 1; ROLLBACK", "BEGIN; SELECT 1; ROLLBACK", Rollback, Rollback},
	{"COMMIT; INSERT INTO a VALUES (1)", "COMMIT; INSERT a", Commit, Commit},
	{"", "empty query", NoEffect, NoEffect},
	{" ; ;-- nothing", "empty query", NoEffect, NoEffect},
	{"CREATE_REPLICATION_SLOT s LOGICAL pgoutput", "CREATE_REPLICATION_SLOT s", Commit, Write},
	{`START_REPLICATION SLOT "s" LOGICAL 0/0 (proto_version '1')`, "START_REPLICATION s", NoEffect, NoEffect},
	{"IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM", NoEffect, NoEffect},
}

func TestSQLNames(t *testing.T) {
	for _, c := range sqlCases {
		s := nameSQL(c.sql, 1000)
		if s.name != c.name {
			t.Errorf("%s\n is named %q, want %q", c.sql, s.name, c.name)
		}
		if got, _ := s.simple(false); got != c.outside {
			t.Errorf("%s\n outside a block has effect %q, want %q", c.sql, got, c.outside)
		}
		if got, _ := s.simple(true); got != c.inside {
			t.Errorf("%s\n inside a block has effect %q, want %q", c.sql, got, c.inside)
		}
	}
}

func TestBlockIsTracked(t *testing.T) {
	for sql, want := range map[string]bool{
		"BEGIN": true, "BEGIN; COMMIT": false, "COMMIT AND CHAIN": true, "ROLLBACK AND CHAIN": true,
		"INSERT INTO a VALUES (1); BEGIN": true, "SELECT 1": false,
	} {
		if _, in := nameSQL(sql, 100).simple(false); in != want {
			t.Errorf("after %s: in a block is %v", sql, in)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		in   string
		max  int
		want string
	}{
		{"short", 10, "short"}, {"exactly", 7, "exactly"}, {"too long", 6, "too…"}, {"äöüäöü", 8, "äö…"},
		{"bad\xffbyte", 20, "bad?byte"}, {"x", 0, ""},
	} {
		if got := clip(c.in, c.max); got != c.want {
			t.Errorf("clip(%q, %d) = %q, want %q", c.in, c.max, got, c.want)
		}
	}
}

func TestDescribeBody(t *testing.T) {
	for _, c := range []struct {
		head  string
		total uint64
		want  string
	}{
		{`{"a": 1}`, 8, `{"a": 1}`}, {"\x00\x01", 2, "<2 bytes>"}, {"caf\xc3", 100, "caf"}, {"caf\xc3", 4, "<4 bytes>"},
		{"0123456789abcdef", 16, "0123456…"}, {"", 0, ""},
	} {
		if got := describeBody([]byte(c.head), c.total, 10); got != c.want {
			t.Errorf("describeBody(%q, %d) = %q, want %q", c.head, c.total, got, c.want)
		}
	}
}
