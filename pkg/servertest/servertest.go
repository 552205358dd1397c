// Package servertest gives a test a PostgreSQL database and a RabbitMQ virtual
// host of its own on the real servers, and removes them when the test ends.
//
//	func TestSomething(t *testing.T) {
//		s := servertest.New(t)
//		_, err := s.DB.Exec(t.Context(), "CREATE TABLE …")
//		ch, err := s.Conn.Channel()
//	}
//
// A test that finds no servers fails, and says how to start them. It is never
// skipped: a skipped test looks like a passing one.
package servertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/state"
)

// Servers is a database and a virtual host. The role and the user that the
// connections and addresses use own them and have no other rights, except that
// the role may replicate where the server's administrator may grant that.
type Servers struct {
	DB          *pgxpool.Pool
	DatabaseURL string
	Conn        *amqp.Connection
	AMQPURL     string
	Name        string // of the database, its owner, the virtual host and its user

	AdminDB *pgxpool.Pool // the administrator's, in the server's own database
	Admin   *broker.Admin
}

// New makes both for one test and removes them at its end. It fails the test if
// it cannot.
func New(t testing.TB) *Servers {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := Open(ctx)
	if err != nil {
		t.Fatalf("This test needs the real servers: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return s
}

// Must is [Open] for an example, which has no test to fail: it panics instead.
func Must() *Servers {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := Open(ctx)
	if err != nil {
		panic(fmt.Sprintf("This example needs the real servers: %v", err))
	}
	return s
}

// Open makes both. The caller closes them.
func Open(ctx context.Context) (s *Servers, err error) {
	at, err := state.LoadServers()
	if err != nil {
		return nil, err
	}
	if at.Management == "" {
		if at.Management, err = broker.ManagementURL(at.AMQP); err != nil {
			return nil, err
		}
	}
	s = &Servers{Name: prefix + strconv.FormatInt(time.Now().Unix(), 10) + "_" + strings.ToLower(rand.Text()[:10])}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	// The administrator's pool holds one connection: many tests may run at once.
	one := func(c *pgxpool.Config) { c.MaxConns = 1 }
	if s.AdminDB, err = postgres.Open(ctx, at.Postgres, one); err != nil {
		return nil, err
	}
	if s.Admin, err = broker.NewAdmin(at.Management); err != nil {
		return nil, err
	}
	if err := s.removeLeftovers(ctx); err != nil {
		return nil, err
	}

	password, err := postgres.CreateRole(ctx, s.AdminDB, s.Name, postgres.RoleOptions{Replication: true})
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == "42501" {
		password, err = postgres.CreateRole(ctx, s.AdminDB, s.Name, postgres.RoleOptions{})
	}
	if err != nil {
		return nil, err
	}
	if err = postgres.CreateDatabase(ctx, s.AdminDB, s.Name, postgres.DatabaseOptions{Owner: s.Name}); err != nil {
		return nil, err
	}
	if s.DatabaseURL, err = postgres.URL(at.Postgres, postgres.Change{User: s.Name, Password: password, Database: s.Name}); err != nil {
		return nil, err
	}
	if s.DB, err = postgres.Open(ctx, s.DatabaseURL, func(c *pgxpool.Config) { c.MaxConns = 10 }); err != nil {
		return nil, err
	}

	if err = s.Admin.EnsureVhost(ctx, s.Name); err != nil {
		return nil, err
	}
	if password, err = s.Admin.EnsureUser(ctx, s.Name, s.Name, broker.Everything); err != nil {
		return nil, err
	}
	if s.AMQPURL, err = broker.URL(at.AMQP, broker.Change{User: s.Name, Password: password, Vhost: s.Name}); err != nil {
		return nil, err
	}
	if s.Conn, err = broker.Dial(ctx, s.AMQPURL); err != nil {
		return nil, err
	}
	return s, nil
}

// Close removes the database and the virtual host with all that is in them,
// and ends the connections to them.
func (s *Servers) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if s.Conn != nil {
		_ = s.Conn.Close()
	}
	var errs []error
	if s.Admin != nil {
		errs = append(errs, s.Admin.DeleteVhost(ctx, s.Name), s.Admin.DeleteUser(ctx, s.Name))
	}
	if s.AdminDB != nil {
		errs = append(errs, postgres.DropDatabase(ctx, s.AdminDB, s.Name), postgres.DropRole(ctx, s.AdminDB, s.Name))
		s.AdminDB.Close()
	}
	if s.DB != nil {
		// A connection that a test has leaked would make Close wait for ever.
		closed := make(chan struct{})
		go func() { s.DB.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(5 * time.Second):
			errs = append(errs, errors.New("servertest: a connection taken from DB was not given back"))
		}
	}
	return errors.Join(errs...)
}

// Everything made here has a name that begins so and goes on with the time in
// Unix seconds.
const (
	prefix   = "cctest_"
	leftover = time.Hour
)

// removeLeftovers removes what a killed test left behind: a forgotten
// replication slot would keep the server's log for ever.
func (s *Servers) removeLeftovers(ctx context.Context) error {
	old := func(name string) bool {
		rest, ok := strings.CutPrefix(name, prefix)
		stamp, _, _ := strings.Cut(rest, "_")
		at, err := strconv.ParseInt(stamp, 10, 64)
		return ok && err == nil && time.Since(time.Unix(at, 0)) > leftover
	}
	var databases, roles []string
	err := s.AdminDB.QueryRow(ctx, `SELECT
		ARRAY(SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)),
		ARRAY(SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, $1))`, prefix).Scan(&databases, &roles)
	if err != nil {
		return fmt.Errorf("servertest: look for leftovers: %w", err)
	}
	for _, name := range databases {
		if old(name) {
			if err := postgres.DropDatabase(ctx, s.AdminDB, name); err != nil {
				return err
			}
		}
	}
	for _, name := range roles {
		if old(name) {
			if err := postgres.DropRole(ctx, s.AdminDB, name); err != nil {
				return err
			}
		}
	}
	vhosts, err := s.Admin.Vhosts(ctx)
	if err != nil {
		return err
	}
	for _, name := range vhosts {
		if old(name) {
			if err := errors.Join(s.Admin.DeleteVhost(ctx, name), s.Admin.DeleteUser(ctx, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
