package postgres_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"crashcourse/pkg/postgres"
	"crashcourse/pkg/servertest"
)

func TestOpenSaysWhatIsWrong(t *testing.T) {
	s := servertest.New(t)
	ctx := t.Context()
	u, err := url.Parse(s.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range []struct {
		name, url, want string
	}{
		{"garbage", "postgres://%zz", "cannot be read"},
		{"nobody listens", "postgres://u:secret@127.0.0.1:1/x", "nothing answers at 127.0.0.1:1"},
		{"unknown host", "postgres://u:secret@no-such-host.invalid:5432/x", "not known"},
		{"no such database", mustURL(t, s.DatabaseURL, postgres.Change{Database: "no such"}), `no database "no such"`},
		{"no such role", mustURL(t, s.DatabaseURL, postgres.Change{User: "nobody_at_all", Password: "secret"}), "nobody_at_all"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			_, err := postgres.Open(ctx, c.url)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if pw, _ := u.User.Password(); strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), pw) {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
	t.Run("no answer", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		_, err := postgres.Open(ctx, "postgres://u@"+silent.Addr().String()+"/x?sslmode=disable")
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "did not answer in time") {
			t.Fatalf("got %v", err)
		}
	})
}

func TestExplain(t *testing.T) {
	for code, want := range map[string]string{
		"28P01": "password",
		"28000": "pg_hba.conf",
		"42501": "CONNECT",
		"53300": "max_connections",
		"57P03": "starting up",
		"XX000": "refused",
	} {
		err := postgres.Explain(&pgconn.PgError{Code: code}, "h", 5432, "u", "d")
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v does not say %q", code, err, want)
		}
	}
}

func TestCreateDatabase(t *testing.T) {
	s := servertest.New(t)
	ctx := t.Context()
	name := s.Name + `_odd "name"/`
	drop := func() {
		if err := errors.Join(postgres.DropDatabase(context.Background(), s.AdminDB, name), postgres.DropRole(context.Background(), s.AdminDB, name)); err != nil {
			t.Error(err)
		}
	}
	drop() // nothing there: no error
	defer drop()

	password, err := postgres.CreateRole(ctx, s.AdminDB, name, postgres.RoleOptions{ConnectionLimit: 5})
	if err != nil {
		t.Fatal(err)
	}
	if err := postgres.CreateDatabase(ctx, s.AdminDB, name, postgres.DatabaseOptions{Owner: name}); err != nil {
		t.Fatal(err)
	}
	if err := postgres.CreateDatabase(ctx, s.AdminDB, name, postgres.DatabaseOptions{}); !errors.Is(err, postgres.ErrExists) {
		t.Fatalf("a second one: %v", err)
	}
	pool, err := postgres.Open(ctx, mustURL(t, s.DatabaseURL, postgres.Change{User: name, Password: password, Database: name}))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "CREATE TABLE t ()"); err != nil {
		t.Errorf("the owner makes a table: %v", err)
	}
	for _, forbidden := range []string{"CREATE DATABASE mine", "CREATE ROLE mine", "SELECT pg_read_file('/etc/passwd')", "COPY t FROM PROGRAM 'true'"} {
		if _, err := pool.Exec(ctx, forbidden); err == nil {
			t.Errorf("the owner may: %s", forbidden)
		}
	}
	if _, err := postgres.Open(ctx, mustURL(t, s.DatabaseURL, postgres.Change{Database: name})); err == nil || !strings.Contains(err.Error(), "grant it CONNECT") {
		t.Errorf("another role connects: %v", err)
	}

	again, err := postgres.CreateRole(ctx, s.AdminDB, name, postgres.RoleOptions{})
	if err != nil || again == password {
		t.Errorf("a role made again has password %q (%v), want a new one", again, err)
	}
	if err := postgres.CreateDatabase(ctx, s.AdminDB, name, postgres.DatabaseOptions{Owner: name, Replace: true}); err != nil {
		t.Fatal(err)
	}
	fresh, err := postgres.Open(ctx, mustURL(t, s.DatabaseURL, postgres.Change{User: name, Password: again, Database: name}))
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if _, err := fresh.Exec(ctx, "CREATE TABLE t ()"); err != nil {
		t.Errorf("the replaced database is not empty: %v", err)
	}
}

// A replication that is under way stands in the way of DROP DATABASE, even
// with FORCE.
func TestDropDatabaseUnderReplication(t *testing.T) {
	s := servertest.New(t)
	ctx := t.Context()
	config, err := pgconn.ParseConfig(mustURL(t, s.DatabaseURL, postgres.Change{Params: map[string]string{"replication": "database"}}))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.Exec(ctx, "CREATE_REPLICATION_SLOT "+s.Name+" LOGICAL pgoutput").Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DB.Exec(ctx, "CREATE PUBLICATION p FOR ALL TABLES"); err == nil {
		t.Fatal("only a superuser may do that")
	}
	conn.Frontend().Send(&pgproto3.Query{String: "START_REPLICATION SLOT " + s.Name + " LOGICAL 0/0 (proto_version '1', publication_names 'p')"})
	if err := conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	if err := postgres.DropDatabase(ctx, s.AdminDB, s.Name); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := s.AdminDB.QueryRow(ctx, "SELECT count(*) FROM pg_replication_slots WHERE database = $1", s.Name).Scan(&left); err != nil || left != 0 {
		t.Fatalf("%d slots left, %v", left, err)
	}
}

func TestURL(t *testing.T) {
	got := mustURL(t, "postgres://a:b@h:1/d?sslmode=disable", postgres.Change{User: "u@x", Password: "p/:?", Address: "[::1]:2", Database: "a/b c", Params: map[string]string{"application_name": "n"}})
	c, err := pgx.ParseConfig(got)
	if err != nil {
		t.Fatal(err)
	}
	if c.User != "u@x" || c.Password != "p/:?" || c.Host != "::1" || c.Port != 2 || c.Database != "a/b c" || c.RuntimeParams["application_name"] != "n" || c.TLSConfig != nil {
		t.Errorf("%s is read as %+v", got, c)
	}
	if got := mustURL(t, "postgres://a:b@h/d", postgres.Change{User: "u"}); got != "postgres://u@h/d" {
		t.Errorf("the old password stays: %s", got)
	}
	for _, bad := range []string{"", "host=h password=secret", "mysql://a:secret@h", "postgres://a:secret@h:x%"} {
		if _, err := postgres.URL(bad, postgres.Change{}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
		if got := postgres.Redact(bad); strings.Contains(got, "secret") {
			t.Errorf("redacted: %s", got)
		}
	}
	if got := postgres.Redact("postgres://a:secret@h/d?password=secret"); strings.Contains(got, "secret") || !strings.Contains(got, "a:") {
		t.Errorf("redacted: %s", got)
	}
}

func mustURL(t *testing.T, base string, c postgres.Change) string {
	t.Helper()
	u, err := postgres.URL(base, c)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
