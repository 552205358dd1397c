package wire

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// payments is a service that takes charges.
type payments struct {
	addr string

	mu      sync.Mutex
	charges []string // the bodies that have arrived whole
	ended   int      // requests, whether answered or given up
	hold    chan struct{}
}

// newPayments serves payments on an address of its own. POST /charges keeps the
// body and answers 201; with ?slow it waits for hold, or for the client to go.
func newPayments(t testing.TB) *payments {
	p := &payments{hold: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /charges", func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p.mu.Lock()
			p.ended++
			p.mu.Unlock()
		}()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if r.URL.Query().Has("slow") {
			select {
			case <-p.hold:
			case <-r.Context().Done():
				return
			}
		}
		p.mu.Lock()
		p.charges = append(p.charges, string(body))
		p.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"taken":%d}`, len(body))
	})
	mux.HandleFunc("GET /charges/{id}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"id":%q}`, r.PathValue("id"))
	})
	mux.HandleFunc("GET /large", func(w http.ResponseWriter, r *http.Request) {
		for range 200 { // chunked, for nobody says how long it is
			_, _ = io.WriteString(w, strings.Repeat("x", 1000))
		}
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			if i == 0 {
				select {
				case <-p.hold:
				case <-r.Context().Done():
				}
			}
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	p.addr = s.Listener.Addr().String()
	return p
}

func (p *payments) taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.charges)
}

// open returns a lane to the service, and a client that knows nothing else.
func (p *payments) open(t testing.TB, cfg Config) (*Proxy, *Lane, *http.Client) {
	t.Helper()
	cfg.Services = map[string]string{"payments": p.addr}
	proxy, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	transport := &http.Transport{DisableCompression: true, ExpectContinueTimeout: 10 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	return proxy, newLane(t, proxy), &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// ask sends a request and returns the status and the body of the response.
func ask(c *http.Client, l *Lane, method, path, body string, header ...string) (int, string, error) {
	r, err := http.NewRequest(method, "http://"+l.Service("payments")+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(b), err
}

func TestHTTPIsNamed(t *testing.T) {
	s := newPayments(t)
	p, l, c := s.open(t, Config{})
	secret := []string{"Idempotency-Key", "order-7", "Authorization", "Bearer s3cret", "Cookie", "session=s3cret"}
	if status, body, err := ask(c, l, "POST", "/charges?token=s3cret", `{"cents":4200}`, secret...); status != 201 || body != `{"taken":14}` || err != nil {
		t.Fatal(status, body, err)
	}
	if status, body, err := ask(c, l, "GET", "/charges/7", ""); status != 200 || body != `{"id":"7"}` || err != nil {
		t.Fatal(status, body, err)
	}
	if status, body, err := ask(c, l, "HEAD", "/charges/8", ""); status != 200 || body != "" || err != nil {
		t.Fatal(status, body, err)
	}
	if status, _, err := ask(c, l, "DELETE", "/charges/7", ""); status != 405 || err != nil {
		t.Fatal(status, err)
	}
	closeLane(t, l)
	var got []string
	for _, m := range p.Trace().Messages {
		if m.Service != "payments" || strings.Contains(m.Detail+m.Name, "s3cret") {
			t.Errorf("%+v", m)
		}
		got = append(got, fmt.Sprintf("%s %q %q", m, m.Effect, m.Detail))
	}
	want := []string{
		`p1.http1>1 POST /charges "call" "Idempotency-Key: order-7\n{\"cents\":4200}"`,
		`p1.http1<1 201 POST /charges "done" "{\"taken\":14}"`,
		`p1.http1>2 GET /charges/7 "" ""`,
		`p1.http1<2 200 GET /charges/7 "" "{\"id\":\"7\"}"`,
		`p1.http1>3 HEAD /charges/8 "" ""`,
		`p1.http1<3 200 HEAD /charges/8 "" ""`,
		`p1.http1>4 DELETE /charges/7 "call" ""`,
		`p1.http1<4 405 DELETE /charges/7 "done" "Method Not Allowed\n"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestServicesShareTheCountOfConnections(t *testing.T) {
	one, two := newPayments(t), newPayments(t)
	p, err := New(Config{Services: map[string]string{"one": one.addr, "two": two.addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l := newLane(t, p)
	for _, name := range []string{"two", "one"} {
		answer, err := http.Post("http://"+l.Service(name)+"/charges", "text/plain", strings.NewReader(name))
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
	}
	if l.Service("three") != "" || l.Postgres() != "" {
		t.Error("an address without a server behind it")
	}
	var got []string
	for _, m := range p.Trace().Messages {
		if m.Dir == ToServer {
			got = append(got, m.Point.String()+" "+m.Service)
		}
	}
	if want := []string{"p1.http1>1 two", "p1.http2>1 one"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if !slices.Equal(one.taken(), []string{"one"}) || !slices.Equal(two.taken(), []string{"two"}) {
		t.Error(one.taken(), two.taken())
	}
}

func TestLargeBodies(t *testing.T) {
	s := newPayments(t)
	p, l, c := s.open(t, Config{})
	large := strings.Repeat("0123456789", 100_000)
	if status, body, err := ask(c, l, "POST", "/charges", large); status != 201 || err != nil {
		t.Fatal(status, body, err)
	}
	// Without a length: chunked.
	answer, err := c.Post("http://"+l.Service("payments")+"/charges", "text/plain", io.MultiReader(strings.NewReader(large)))
	if err != nil || answer.StatusCode != 201 {
		t.Fatal(answer, err)
	}
	_ = answer.Body.Close()
	if status, body, err := ask(c, l, "GET", "/large", ""); status != 200 || len(body) != 200_000 || err != nil {
		t.Fatal(status, len(body), err)
	}
	if got := s.taken(); len(got) != 2 || got[0] != large || got[1] != large {
		t.Error("a large body did not come through as it was")
	}
	for _, m := range p.Trace().Messages {
		if m.Step && (m.Size < 200_000) != (m.Status == 201 || m.Dir == ToServer && m.Effect != Call) {
			t.Errorf("%s is said to be of %d bytes", m, m.Size)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	s := newPayments(t)
	p, l, c := s.open(t, Config{})
	began := time.Now()
	if status, _, err := ask(c, l, "POST", "/charges", "a body that waits", "Expect", "100-continue"); status != 201 || err != nil {
		t.Fatal(status, err)
	}
	if time.Since(began) > 9*time.Second {
		t.Error("the client was not told to continue")
	}
	if got := s.taken(); !slices.Equal(got, []string{"a body that waits"}) {
		t.Errorf("%q", got)
	}
	var got []string
	for _, m := range p.Trace().Messages {
		got = append(got, fmt.Sprintf("%s %v", m.Name, m.Step))
	}
	if want := []string{"POST /charges true", "100 POST /charges false", "201 POST /charges true"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestEventStream(t *testing.T) {
	s := newPayments(t)
	_, l, c := s.open(t, Config{})
	answer, err := c.Get("http://" + l.Service("payments") + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	in := bufio.NewReader(answer.Body)
	if line, err := in.ReadString('\n'); line != "data: 0\n" || err != nil {
		t.Fatalf("%q %v", line, err)
	}
	close(s.hold) // only now is the rest sent
	if rest, err := io.ReadAll(in); string(rest) != "\ndata: 1\n\ndata: 2\n\n" || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

// TestPipelining sends requests without waiting for responses.
func TestPipelining(t *testing.T) {
	s := newPayments(t)
	p, l, _ := s.open(t, Config{})
	conn, err := net.Dial("tcp", l.Service("payments"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var out strings.Builder
	for i := range 5 {
		fmt.Fprintf(&out, "GET /charges/%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
	}
	out.WriteString("POST /charges HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n")
	if _, err := io.WriteString(conn, out.String()); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for i := range 6 {
		answer, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(answer.Body)
		if want := fmt.Sprintf(`{"id":"%d"}`, i); i < 5 && string(b) != want {
			t.Errorf("response %d is %s", i, b)
		}
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("after Connection: close: %v", err)
	}
	got := steps(p.Trace(), func(m Message) bool { return m.Dir == ToClient })
	if len(got) != 6 || got[0] != "< 200 GET /charges/0" || got[5] != "< 201 POST /charges" {
		t.Errorf("%q", got)
	}
}

// TestHTTPNonsense sends what is not understood, or not to be.
func TestHTTPNonsense(t *testing.T) {
	s := newPayments(t)
	for _, c := range []struct{ send, answer string }{
		{"\x16\x03\x01\x00\xf1\x01\x00\x00\xed", string(tlsAlert)},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 "},
		{"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", "HTTP/1.1 400 "},
		{"POST /charges HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 "},
		{"POST /charges HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "HTTP/1.1 400 "},
		{"POST /charges HTTP/1.1\r\nHost : x\r\n\r\n", "HTTP/1.1 400 "},
		{"POST /charges HTTP/1.1\nHost: x\n\n", "HTTP/1.1 400 "},
		{"POST /charges HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", "HTTP/1.1 400 "},
		{"POST /charges HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "HTTP/1.1 400 "},
		{"AMQP\x00\x00\x09\x01\n", "HTTP/1.1 400 "},
		{"\x00\x00\x00\x22\x00\x03\x00\x00", "HTTP/1.1 400 "},
		{"GET /" + strings.Repeat("x", maxWhole) + " HTTP/1.1\r\n", "HTTP/1.1 400 "},
	} {
		_, l, _ := s.open(t, Config{})
		conn, err := net.Dial("tcp", l.Service("payments"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, c.send)
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		got, err := io.ReadAll(conn)
		if !strings.HasPrefix(string(got), c.answer) || err != nil {
			t.Errorf("%.60q is answered with %q, %v", c.send, got, err)
		}
		_ = conn.Close()
		closeLane(t, l)
	}
	if got := s.taken(); len(got) > 0 {
		t.Errorf("the service took %q", got)
	}
}

// TestUpgrade asks for another protocol of a service that agrees, and of one
// that does not.
func TestUpgrade(t *testing.T) {
	s := newPayments(t)
	_, l, c := s.open(t, Config{})
	if status, _, err := ask(c, l, "GET", "/charges/1", "", "Connection", "Upgrade", "Upgrade", "h2c"); status != 200 || err != nil {
		t.Errorf("an upgrade that the service ignores: %d %v", status, err)
	}
	agrees := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "other")
		w.WriteHeader(http.StatusSwitchingProtocols)
	}))
	defer agrees.Close()
	s.addr = agrees.Listener.Addr().String()
	p, l, c := s.open(t, Config{})
	if status, _, err := ask(c, l, "GET", "/", "", "Connection", "Upgrade", "Upgrade", "other"); err == nil {
		t.Errorf("an upgrade that the service agrees to: %d", status)
	}
	tr := p.Trace()
	if last := tr.Messages[len(tr.Messages)-1]; last.Type != "malformed" || !strings.Contains(last.Detail, "101") {
		t.Errorf("the trace ends with %+v", last)
	}
}

func TestServiceUnreachable(t *testing.T) {
	s := &payments{addr: closedPort(t)}
	_, l, c := s.open(t, Config{})
	if status, _, err := ask(c, l, "POST", "/charges", "x"); err == nil {
		t.Errorf("answered %d", status)
	}
}

func TestBadServices(t *testing.T) {
	for _, services := range []map[string]string{{"payments": "http://localhost:1"}, {"payments": ""}, {"": "localhost:1"}} {
		if _, err := New(Config{Services: services}); err == nil {
			t.Errorf("%v was accepted", services)
		}
	}
}

// TestCloseLetsTheServiceAnswer closes a lane while a service is at work on a
// request: one that does not take long is let finish.
func TestCloseLetsTheServiceAnswer(t *testing.T) {
	for range 5 {
		s := newPayments(t)
		p, l, c := s.open(t, Config{})
		result := make(chan error, 1)
		go func() {
			_, _, err := ask(c, l, "POST", "/charges?slow", "x")
			result <- err
		}()
		for p.Steps() == 0 {
			time.Sleep(time.Millisecond)
		}
		if n := l.Unanswered(); n != 1 {
			t.Errorf("%d requests are said to be under way", n)
		}
		l.Freeze()
		time.AfterFunc(20*time.Millisecond, func() { close(s.hold) })
		closeLane(t, l)
		if got := s.taken(); len(got) != 1 {
			t.Fatalf("%d charges: what was forwarded was not done", len(got))
		}
		if n := l.Unanswered(); n != 0 {
			t.Errorf("%d requests are said to be under way in a closed lane", n)
		}
		if err := await(t, "the client to notice", result); err == nil {
			t.Error("a frozen lane answered")
		}
	}
}

// TestCloseTellsASlowService closes a lane before a service that answers only
// much later: it learns that the client has gone, and Close waits for that.
func TestCloseTellsASlowService(t *testing.T) {
	s := newPayments(t)
	p, l, c := s.open(t, Config{})
	result := make(chan error, 1)
	go func() {
		_, _, err := ask(c, l, "POST", "/charges?slow", "x")
		result <- err
	}()
	for p.Steps() == 0 {
		time.Sleep(time.Millisecond)
	}
	closeLane(t, l)
	s.mu.Lock()
	ended, taken := s.ended, len(s.charges)
	s.mu.Unlock()
	if ended != 1 || taken != 0 {
		t.Errorf("right after Close %d requests have ended, with %d charges", ended, taken)
	}
	await(t, "the client to notice", result)
}

func TestCloseGivesUpOnAService(t *testing.T) {
	forever := make(chan struct{})
	deaf := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-forever }))
	defer deaf.Close()
	defer close(forever)
	s := &payments{addr: deaf.Listener.Addr().String()}
	p, l, c := s.open(t, Config{})
	result := make(chan error, 1)
	go func() {
		_, _, err := ask(c, l, "POST", "/", "x")
		result <- err
	}()
	for p.Steps() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); err == nil || !strings.Contains(err.Error(), "1 connections") {
		t.Errorf("Close returned %v", err)
	}
	if n := l.Unanswered(); n != 0 {
		t.Errorf("%d requests are said to be under way", n)
	}
	await(t, "the client to notice", result)
}
