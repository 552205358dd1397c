package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// charge asks for one charge in the background.
func charge(c *http.Client, l *Lane) <-chan error {
	result := make(chan error, 1)
	go func() {
		status, body, err := ask(c, l, "POST", "/charges", "x")
		if err == nil && status != http.StatusCreated {
			err = fmt.Errorf("status %d: %s", status, body)
		}
		result <- err
	}()
	return result
}

// httpSides are the two messages of a charge, and how many charges the service
// has taken when a fault strikes just before that message.
var httpSides = []struct {
	dir   Direction
	name  string
	taken int
}{{ToServer, "POST /charges", 0}, {ToClient, "201 POST /charges", 1}}

func TestFreezeHTTP(t *testing.T) {
	for _, side := range httpSides {
		s := newPayments(t)
		decide, hit := at(side.dir, side.name, Action{Kind: Freeze})
		p, l, c := s.open(t, Config{Decide: decide})
		result := charge(c, l)
		await(t, "the freeze", hit)
		select {
		case err := <-result:
			t.Errorf("%s: the client was told %v", side.name, err)
		case <-time.After(50 * time.Millisecond):
		}
		closeLane(t, l)
		if err := await(t, "the client to notice", result); err == nil {
			t.Errorf("%s: a frozen request succeeded", side.name)
		}
		if n := len(s.taken()); n != side.taken {
			t.Errorf("%s: %d charges, want %d", side.name, n, side.taken)
		}
		tr := p.Trace()
		if last := tr.Messages[len(tr.Messages)-1]; last.Name != side.name || last.Fault != string(Freeze) {
			t.Errorf("the trace ends with %+v", last)
		}
	}
}

func TestCutHTTP(t *testing.T) {
	for _, side := range httpSides {
		s := newPayments(t)
		decide, hit := at(side.dir, side.name, Action{Kind: Cut})
		p, l, c := s.open(t, Config{Decide: decide})
		result := charge(c, l)
		await(t, "the cut", hit)
		if err := await(t, "the client to notice", result); err == nil {
			t.Errorf("%s: no error on a cut connection", side.name)
		}
		if n := len(s.taken()); n != side.taken {
			t.Errorf("%s: %d charges, want %d", side.name, n, side.taken)
		}
		// The process lives, and may come again.
		if err := await(t, "another charge", charge(c, l)); err != nil {
			t.Error(err)
		}
		if got := p.Trace().Messages; got[len(got)-1].Point.String() != "p1.http2<1" {
			t.Errorf("the last message is %s", got[len(got)-1])
		}
	}
}

func TestBlackholeHTTP(t *testing.T) {
	for _, side := range httpSides {
		s := newPayments(t)
		decide, hit := at(side.dir, side.name, Action{Kind: Blackhole})
		_, l, c := s.open(t, Config{Decide: decide})
		c.Timeout = 200 * time.Millisecond
		err := await(t, "the client's patience to end", charge(c, l))
		await(t, "the blackhole", hit)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want a timeout", side.name, err)
		}
		closeLane(t, l)
		if n := len(s.taken()); n != side.taken {
			t.Errorf("%s: %d charges, want %d", side.name, n, side.taken)
		}
	}
}

func TestHoldHTTP(t *testing.T) {
	for _, side := range httpSides {
		s := newPayments(t)
		until := make(chan Action)
		decide, hit := at(side.dir, side.name, Action{Kind: Hold, Until: until})
		_, l, c := s.open(t, Config{Decide: decide})
		result := charge(c, l)
		await(t, "the hold", hit)
		if status, _, err := ask(c, l, "GET", "/charges/1", ""); status != 200 || err != nil { // other connections go on
			t.Error(status, err)
		}
		if n := len(s.taken()); n != side.taken {
			t.Errorf("%s: %d charges, want %d", side.name, n, side.taken)
		}
		until <- Action{}
		if err := await(t, "the held charge", result); err != nil {
			t.Error(err)
		}
		if n := len(s.taken()); n != 1 {
			t.Errorf("%d charges, want 1", n)
		}
	}
}

func TestDelayHTTP(t *testing.T) {
	s := newPayments(t)
	const d = 80 * time.Millisecond
	for _, side := range httpSides {
		decide, hit := at(side.dir, side.name, Action{Kind: Delay, For: d})
		_, l, c := s.open(t, Config{Decide: decide})
		began := time.Now()
		if err := await(t, "the charge", charge(c, l)); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < d {
			t.Errorf("it took %v", took)
		}
		await(t, "the delay", hit)
	}
}

func TestFailHTTP(t *testing.T) {
	for i, side := range httpSides {
		s := newPayments(t)
		decide, hit := at(side.dir, side.name, Action{Kind: Fail})
		p, l, c := s.open(t, Config{Decide: decide})
		status, _, err := ask(c, l, "POST", "/charges", "x")
		await(t, "the fault", hit)
		if want := []int{503, 502}[i]; status != want || err != nil {
			t.Errorf("%s: answered %d, %v, want %d", side.name, status, err, want)
		}
		if n := len(s.taken()); n != side.taken {
			t.Errorf("%s: %d charges, want %d", side.name, n, side.taken)
		}
		// The connection goes on.
		if err := await(t, "another charge", charge(c, l)); err != nil {
			t.Error(err)
		}
		closeLane(t, l)
		var got []string
		for _, m := range p.Trace().Messages {
			got = append(got, m.String()+" "+m.Fault)
		}
		want := [][]string{
			{"p1.http1>1 POST /charges fail", "p1.http1<1 503 POST /charges ", "p1.http1>2 POST /charges ", "p1.http1<2 201 POST /charges "},
			{"p1.http1>1 POST /charges ", "p1.http1<1 201 POST /charges fail", "p1.http1>2 POST /charges ", "p1.http1<2 201 POST /charges "},
		}[i]
		if !slices.Equal(got, want) {
			t.Errorf("%s: the trace is %q", side.name, got)
		}
	}
}

// TestFailLargeHTTP fails what is longer than can be held: the rest of it goes
// nowhere either.
func TestFailLargeHTTP(t *testing.T) {
	s := newPayments(t)
	large := strings.Repeat("x", 1_000_000)
	for _, expect := range []string{"", "100-continue"} {
		decide, hit := at(ToServer, "POST /charges", Action{Kind: Fail})
		_, l, c := s.open(t, Config{Decide: decide})
		if status, _, err := ask(c, l, "POST", "/charges", large, "Expect", expect); status != 503 || err != nil {
			t.Errorf("answered %d, %v", status, err)
		}
		await(t, "the fault", hit)
		if err := await(t, "another charge", charge(c, l)); err != nil {
			t.Error(err)
		}
		closeLane(t, l)
	}
	if got := s.taken(); !slices.Equal(got, []string{"x", "x"}) {
		t.Errorf("%d charges", len(got))
	}
	decide, _ := at(ToClient, "200 GET /large", Action{Kind: Fail})
	_, l, c := s.open(t, Config{Decide: decide})
	for _, want := range []int{502, 200} {
		if status, _, err := ask(c, l, "GET", "/large", ""); status != want || err != nil {
			t.Errorf("answered %d, %v, want %d", status, err, want)
		}
	}
}

// TestUnfitFaultsPassHTTP tries what HTTP has no message for.
func TestUnfitFaultsPassHTTP(t *testing.T) {
	s := newPayments(t)
	for _, kind := range []ActionKind{Nack, Shutdown, Duplicate} {
		p, l, c := s.open(t, Config{Decide: func(*Message) Action { return Action{Kind: kind} }, Twin: func(Publishing) { t.Error("a twin") }})
		if err := await(t, "the charge", charge(c, l)); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		for _, m := range p.Trace().Messages {
			if m.Fault != "" {
				t.Errorf("%s is recorded as struck by %s", m.Name, m.Fault)
			}
		}
	}
}

// TestFreezeHTTPToTheByte floods a service on many connections, freezes at some
// message, and compares what it got with what the trace says passed.
func TestFreezeHTTPToTheByte(t *testing.T) {
	for round := range 10 {
		addr, received := countingServer(t)
		stopAt, count := 50+37*round, 0
		decide := func(m *Message) Action {
			if count++; count == stopAt {
				return Action{Kind: Freeze}
			}
			if count > stopAt {
				t.Error("asked about a message after the freeze")
			}
			return Action{}
		}
		p, err := New(Config{Services: map[string]string{"payments": addr}, Decide: decide})
		if err != nil {
			t.Fatal(err)
		}
		lane := newLane(t, p)
		var wg sync.WaitGroup
		for i := range 6 {
			c, err := net.Dial("tcp", lane.Service("payments"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			then := fmt.Sprintf("POST /charges/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", i)
			switch i % 3 {
			case 1:
				then = "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
			case 2: // decided on its first part
				then = fmt.Sprintf("PUT /l HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", 2*maxWhole, strings.Repeat("y", 2*maxWhole))
			}
			wg.Go(func() {
				for !lane.Frozen() {
					if _, err := io.WriteString(c, strings.Repeat(then, 1+i)); err != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		closeLane(t, lane)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		var want int64
		for _, m := range p.Trace().Messages {
			if m.Fault == "" {
				want += m.Size
			}
		}
		for deadline := time.Now().Add(5 * time.Second); received.Load() < want && time.Now().Before(deadline); {
			runtime.Gosched()
		}
		if received.Load() != want {
			t.Fatalf("round %d: the service got %d bytes, the trace says %d", round, received.Load(), want)
		}
	}
}
