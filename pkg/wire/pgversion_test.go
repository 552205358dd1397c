package wire

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestProtocol32 asks for protocol 3.2, which PostgreSQL 18 speaks and older
// ones negotiate down, and cancels a statement with the key it was given.
func TestProtocol32(t *testing.T) {
	p := newProxy(t, Config{})
	ctx := within(t, 20*time.Second)
	c, err := pgconn.Connect(ctx, withQuery(pgThrough(newLane(t, p)), "sslmode=disable&max_protocol_version=3.2"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx) //nolint:errcheck // a test
	var negotiated bool
	for _, m := range p.Trace().Messages {
		negotiated = negotiated || m.Name == "negotiate protocol version"
	}
	version := c.ParameterStatus("server_version")
	t.Logf("PostgreSQL %s: negotiated down: %v, a key of %d bytes", version, negotiated, len(c.SecretKey()))
	if negotiated != (len(c.SecretKey()) == 4) {
		t.Errorf("a key of %d bytes does not fit", len(c.SecretKey()))
	}
	if major, _, _ := strings.Cut(version, "."); len(major) == 2 && (major >= "18") == negotiated {
		t.Errorf("PostgreSQL %s: negotiated down: %v", version, negotiated)
	}

	result := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, "SELECT pg_sleep(15)").ReadAll()
		result <- err
	}()
	// A cancel request that comes before the statement cancels nothing.
	for err = nil; err == nil; {
		select {
		case err = <-result:
			expectCode(t, err, "57014")
		case <-time.After(50 * time.Millisecond):
			if err := c.CancelRequest(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDirectTLS opens with a TLS handshake, as sslnegotiation=direct does.
func TestDirectTLS(t *testing.T) {
	_, err := pgconn.Connect(within(t, 5*time.Second),
		withQuery(pgThrough(newLane(t, newProxy(t, Config{}))), "sslmode=require&sslnegotiation=direct"))
	if err == nil || !strings.Contains(err.Error(), "handshake failure") {
		t.Errorf("got %v, want to be told that there is no TLS", err)
	}
}

// TestCopyBySync sends a COPY as libraries do that send a Sync behind every
// Execute: the server ignores that one.
func TestCopyBySync(t *testing.T) {
	table := makeTable(t)
	var fail atomic.Bool
	p := newProxy(t, Config{Decide: func(m *Message) Action {
		if fail.Load() && m.Type == "Execute" {
			return Action{Kind: Fail, SQLState: "40001"}
		}
		return Action{}
	}})
	ctx := within(t, 20*time.Second)
	c, err := pgconn.Connect(ctx, pgThrough(newLane(t, p)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx) //nolint:errcheck // a test
	front := c.Frontend()
	execute := func(sql string) {
		front.SendParse(&pgproto3.Parse{Query: sql})
		front.SendBind(&pgproto3.Bind{})
		front.SendExecute(&pgproto3.Execute{})
		front.SendSync(&pgproto3.Sync{})
	}
	// until receives up to the first message that says stop, and tells what kinds
	// of message came.
	until := func(stop func(pgproto3.BackendMessage) bool) (kinds string) {
		t.Helper()
		if err := front.Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := front.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m.(type) {
			case *pgproto3.ParseComplete:
				kinds += "1"
			case *pgproto3.BindComplete:
				kinds += "2"
			case *pgproto3.CommandComplete:
				kinds += "C"
			case *pgproto3.ErrorResponse:
				kinds += "E"
			}
			if stop(m) {
				return kinds
			}
		}
	}
	ready := func(m pgproto3.BackendMessage) bool { _, ok := m.(*pgproto3.ReadyForQuery); return ok }

	execute("COPY " + table + " FROM STDIN")
	until(func(m pgproto3.BackendMessage) bool { _, ok := m.(*pgproto3.CopyInResponse); return ok })
	front.Send(&pgproto3.CopyData{Data: []byte("1\tx\n")})
	front.Send(&pgproto3.CopyDone{})
	front.SendSync(&pgproto3.Sync{})
	if got := until(ready); got != "C" {
		t.Errorf("the COPY was answered %q", got)
	}
	want := []string{"> COPY " + table, "> COPY " + table + " end", "> sync commits COPY " + table, "< COPY " + table + " done"}
	if got := steps(p.Trace(), nil); !slices.Equal(got, want) {
		t.Errorf("steps %q, want %q", got, want)
	}
	// What answers the proxy's own messages must still be found and hidden.
	for range 2 {
		fail.Store(true)
		execute("DELETE FROM " + table)
		if got := until(ready); got != "12E" {
			t.Errorf("a statement that fails was answered %q", got)
		}
		fail.Store(false)
		execute("SELECT 1")
		if got := until(ready); got != "12C" {
			t.Errorf("a statement was answered %q", got)
		}
	}
	if n := countPG(t, table); n != 1 {
		t.Errorf("%d rows", n)
	}
}
