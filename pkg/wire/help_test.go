package wire

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/state"
)

// names of the database and the virtual host of these tests.
var testName = fmt.Sprintf("wire_test_%d", os.Getpid())

// testServers are the real servers, with a database and a virtual host of the
// tests' own.
type testServers struct {
	pgURL, amqpURL   string // direct
	pgAddr, amqpAddr string
}

var servers testServers

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.fuzzworker"); f != nil && f.Value.String() == "true" {
		os.Exit(m.Run()) // fuzzing needs no servers
	}
	os.Exit(func() int {
		done, err := setUp()
		if err != nil {
			fmt.Fprintln(os.Stderr, "wire tests need the servers:", err)
			return 1
		}
		defer done()
		return m.Run()
	}())
}

func setUp() (func(), error) {
	s, err := state.LoadServers()
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	admin, err := pgx.Connect(ctx, s.Postgres)
	if err != nil {
		return nil, err
	}
	drop := func() { // also what a killed run with the same number left
		_, _ = admin.Exec(ctx, "DROP DATABASE IF EXISTS "+testName+" WITH (FORCE)")
		_ = manage(http.MethodDelete, s, "/api/vhosts/"+testName)
	}
	drop()
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+testName); err != nil {
		return nil, err
	}
	if err := manage(http.MethodPut, s, "/api/vhosts/"+testName); err != nil {
		return nil, err
	}
	servers.pgURL = withPath(s.Postgres, testName)
	servers.amqpURL = withPath(s.AMQP, testName)
	servers.pgAddr, servers.amqpAddr = hostOf(s.Postgres), hostOf(s.AMQP)
	return func() {
		drop()
		_ = admin.Close(ctx)
	}, nil
}

func manage(method string, s state.Servers, path string) error {
	base, err := url.Parse(s.Management)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, "http://"+base.Host+path, nil)
	if err != nil {
		return err
	}
	pass, _ := base.User.Password()
	req.SetBasicAuth(base.User.Username(), pass)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, path, res.Status)
	}
	return nil
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

func withPath(address, path string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.Path = "/" + path
	return u.String()
}

func withHost(address, host string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.Host = host
	return u.String()
}

// withQuery sets the query, keeping nothing of the one that was there.
func withQuery(address, query string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.RawQuery = query
	return u.String()
}

// newProxy returns a proxy before both servers, closed when the test ends.
func newProxy(t testing.TB, cfg Config) *Proxy {
	t.Helper()
	cfg.Postgres, cfg.AMQP = servers.pgAddr, servers.amqpAddr
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func newLane(t testing.TB, p *Proxy) *Lane {
	t.Helper()
	l, err := p.Lane()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLane(t testing.TB, l *Lane) {
	t.Helper()
	if err := l.Close(within(t, 5*time.Second)); err != nil {
		t.Error(err)
	}
}

// within returns a context for one step of a test.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func pgThrough(l *Lane) string   { return withHost(servers.pgURL, l.Postgres()) }
func amqpThrough(l *Lane) string { return withHost(servers.amqpURL, l.AMQP()) }

// connectPG opens one connection; direct when l is nil.
func connectPG(t testing.TB, l *Lane) *pgx.Conn {
	t.Helper()
	dsn := servers.pgURL
	if l != nil {
		dsn = pgThrough(l)
	}
	c, err := pgx.Connect(within(t, 10*time.Second), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(within(t, time.Second)) })
	return c
}

func poolPG(t testing.TB, l *Lane, configure func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	dsn := servers.pgURL
	if l != nil {
		dsn = pgThrough(l)
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if configure != nil {
		configure(cfg)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func connectAMQP(t testing.TB, l *Lane) *amqp.Connection {
	t.Helper()
	address := servers.amqpURL
	if l != nil {
		address = amqpThrough(l)
	}
	c, err := amqp.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseDeadline(time.Now().Add(time.Second)) })
	return c
}

func channelOf(t testing.TB, c *amqp.Connection) *amqp.Channel {
	t.Helper()
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// makeTable makes an empty table of its own name for the test.
func makeTable(t testing.TB) string {
	t.Helper()
	name := uniqueName(t)
	execPG(t, connectPG(t, nil), "CREATE TABLE "+name+" (id int PRIMARY KEY, body text)")
	return name
}

// makeQueue makes an empty queue of its own name for the test, which may be
// published to through the default exchange.
func makeQueue(t testing.TB) string {
	t.Helper()
	name := uniqueName(t)
	ch := channelOf(t, connectAMQP(t, nil))
	if _, err := ch.QueueDeclare(name, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	return name
}

var (
	nameMu    sync.Mutex
	nameCount int
)

func uniqueName(t testing.TB) string {
	nameMu.Lock()
	defer nameMu.Unlock()
	nameCount++
	name := strings.TrimPrefix(strings.ToLower(t.Name()), "test")
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
	return fmt.Sprintf("t%d_%s", nameCount, name[:min(len(name), 12)])
}

func execPG(t testing.TB, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(within(t, 10*time.Second), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func countPG(t testing.TB, table string) (n int) {
	t.Helper()
	c := connectPG(t, nil)
	if err := c.QueryRow(within(t, 5*time.Second), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// countAMQP returns how many messages are ready in the queue.
func countAMQP(t testing.TB, queue string) int {
	t.Helper()
	q, err := channelOf(t, connectAMQP(t, nil)).QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}

// steps returns the names of the steps of a trace, with their direction.
func steps(tr Trace, keep func(Message) bool) (out []string) {
	for _, m := range tr.Messages {
		if m.Step && (keep == nil || keep(m)) {
			out = append(out, string(m.Dir)+" "+m.Name)
		}
	}
	return out
}

// at returns a Decide that does act at the first message of that name and
// direction, and tells on hit that it did.
func at(dir Direction, name string, act Action) (decide func(*Message) Action, hit chan Message) {
	hit = make(chan Message, 1)
	done := false
	return func(m *Message) Action {
		if !done && m.Dir == dir && m.Name == name {
			done = true
			hit <- *m
			return act
		}
		return Action{}
	}, hit
}

func await[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// closedPort returns an address where nobody listens.
func closedPort(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
