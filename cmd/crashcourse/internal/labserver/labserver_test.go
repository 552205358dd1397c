package labserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/servertest"
	"crashcourse/pkg/state"
	"crashcourse/pkg/step"
	"crashcourse/pkg/wire"
)

const workEnv = "LABSERVER_TEST_WORK"

// TestMain is also the program that is stepped through.
func TestMain(m *testing.M) {
	if os.Getenv(workEnv) == "" {
		os.Exit(m.Run())
	}
	ctx := context.Background()
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err == nil {
		_, err = db.Exec(ctx, "CREATE TABLE IF NOT EXISTS t (id int)")
	}
	var said step.Report
	if err != nil {
		said.Error = err.Error()
	}
	_ = json.NewEncoder(os.NewFile(step.ReportFD, "report")).Encode(said)
	os.Exit(0)
}

func start(t *testing.T) *Server {
	t.Helper()
	s, err := Start(t.Context(), t.TempDir(), "crashcourse/", 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask sends a request; headers come in pairs. "Host" sets the host.
func ask(t *testing.T, s *Server, method, path, body string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.At().URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestWhoIsLetIn(t *testing.T) {
	s := start(t)
	bearer := "Bearer " + s.At().Token
	good := cookie + "=" + s.At().Token
	for _, c := range []struct {
		name    string
		method  string
		path    string
		headers []string
		want    int
	}{
		{"nothing", "GET", "/", nil, 403},
		{"a wrong token", "GET", "/", []string{"Authorization", "Bearer " + strings.Repeat("A", 26)}, 403},
		{"a wrong token and a right cookie", "GET", "/", []string{"Authorization", "Bearer no", "Cookie", good}, 403},
		{"a wrong cookie", "GET", "/", []string{"Cookie", cookie + "=no"}, 403},
		{"a wrong token in the address", "GET", "/?token=no", nil, 403},
		{"the token", "GET", "/", []string{"Authorization", bearer}, 200},
		{"the token, through a proxy that keeps the host", "GET", "/", []string{"Authorization", bearer, "Host", "hub.example"}, 200},
		{"the cookie", "GET", "/", []string{"Cookie", good}, 200},
		{"the cookie, under another name", "GET", "/", []string{"Cookie", good, "Host", "evil.example:80"}, 403},
		{"the token in the address, under another name", "GET", "/?token=" + s.At().Token, []string{"Host", "evil.example"}, 403},
		{"another site's page", "POST", "/s/x/do", []string{"Cookie", good, "Origin", "https://evil.example", "Content-Type", "application/json"}, 403},
		{"another site's page, by its fetch", "GET", "/", []string{"Cookie", good, "Sec-Fetch-Site", "cross-site"}, 403},
		{"another port's page", "POST", "/s/x/do", []string{"Cookie", good, "Sec-Fetch-Site", "same-site", "Content-Type", "application/json"}, 403},
		{"our own page", "POST", "/s/x/do", []string{"Cookie", good, "Origin", s.At().URL, "Content-Type", "application/json"}, 410},
		{"our own page through JupyterLab", "POST", "/s/x/do", []string{"Authorization", bearer, "Host", "hub.example", "Origin", "https://hub.example", "Content-Type", "application/json"}, 410},
		{"another site through JupyterLab", "POST", "/s/x/do", []string{"Authorization", bearer, "Host", "hub.example", "Origin", "https://evil.example", "Content-Type", "application/json"}, 403},
		{"a session that is over", "GET", "/s/x/", []string{"Authorization", bearer}, 410},
		{"a form", "POST", "/sessions", []string{"Authorization", bearer, "Content-Type", "text/plain"}, 415},
		{"rubbish", "POST", "/sessions", []string{"Authorization", bearer, "Content-Type", "application/json"}, 400},
	} {
		if got, body := ask(t, s, c.method, c.path, "", c.headers...); got != c.want {
			t.Errorf("%s: %d, want %d: %s", c.name, got, c.want, body)
		} else if strings.Contains(body, s.At().Token) {
			t.Errorf("%s: the answer tells the token", c.name)
		}
	}
}

func TestTokenInTheAddressBecomesACookie(t *testing.T) {
	s := start(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Jar: jar}
	for range 2 {
		res, err := client.Get(s.At().URL + "/?token=" + s.At().Token)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 200 || strings.Contains(res.Request.URL.String(), "token") {
			t.Errorf("%s: %s", res.Request.URL, res.Status)
		}
	}
}

func TestTheTokenIsTheOwners(t *testing.T) {
	s := start(t)
	info, err := os.Stat(filepath.Join(s.dir, "labserver.json"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("labserver.json has mode %v", info.Mode())
	}
	if at, err := state.LoadLab(s.dir); err != nil || at != s.At() {
		t.Errorf("recorded: %+v, %v", at, err)
	}
}

// open opens a session through the server, as a cell does.
func open(t *testing.T, s *Server, servers *servertest.Servers) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(step.Config{Title: "make a <table>", Postgres: servers.DatabaseURL, AMQP: servers.AMQPURL,
		Works: []step.Work{{Name: "make", Path: self, Env: append(os.Environ(), workEnv+"=1")}}})
	if err != nil {
		t.Fatal(err)
	}
	status, answer := ask(t, s, "POST", "/sessions", string(body), "Authorization", "Bearer "+s.At().Token, "Content-Type", "application/json")
	var opened step.Opened
	if err := json.Unmarshal([]byte(answer), &opened); err != nil || status != 200 || opened.Path == "" {
		t.Fatalf("%d %s", status, answer)
	}
	return "/" + opened.Path
}

func TestSession(t *testing.T) {
	s := start(t)
	servers := servertest.New(t)
	path := open(t, s, servers)
	bearer := []string{"Authorization", "Bearer " + s.At().Token, "Content-Type", "application/json"}

	status, page := ask(t, s, "GET", path, "", bearer...)
	if status != 200 || !strings.Contains(page, "make a &lt;table&gt;") || strings.Contains(page, s.At().Token) {
		t.Errorf("the page: %d %.200s", status, page)
	}
	if status, list := ask(t, s, "GET", "/", "", bearer...); status != 200 || !strings.Contains(list, "make a &lt;table&gt;") {
		t.Errorf("the list: %d %s", status, list)
	}

	req, err := http.NewRequestWithContext(t.Context(), "GET", s.At().URL+path+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", bearer[1])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	events := make(chan step.Event, 100)
	go func() {
		defer close(events)
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok {
				var e step.Event
				if json.Unmarshal(data, &e) == nil {
					events <- e
				}
			}
		}
	}()
	wait := func(what string, ok func(step.Event) bool) {
		t.Helper()
		for {
			select {
			case e, more := <-events:
				if ok(e) {
					return
				}
				if !more {
					t.Fatalf("the stream ended before %s", what)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("waited too long for %s", what)
			}
		}
	}
	wait("the first event", func(e step.Event) bool { return e.Type == step.Reset })
	if status, body := ask(t, s, "POST", path+"do", `{"act":"cut","id":"p9.pg1>1"}`, bearer...); status != 409 || !strings.Contains(body, "error") {
		t.Errorf("a command for a message that does not wait: %d %s", status, body)
	}
	if status, body := ask(t, s, "POST", path+"do", `{"act":"step"}`, bearer...); status != 200 {
		t.Errorf("a step: %d %s", status, body)
	}
	wait("a message to pass", func(e step.Event) bool { return e.Type == step.Passed && len(e.Messages) == 1 })

	// A second session with the same tables ends the first.
	second := open(t, s, servers)
	wait("the first session's end", func(e step.Event) bool { return e.Type == step.Over && strings.Contains(e.Text, "newer cell") })
	if status, _ := ask(t, s, "POST", path+"do", `{"act":"step"}`, bearer...); status != 410 {
		t.Errorf("a step in a session that is over: %d", status)
	}
	if status, _ := ask(t, s, "GET", second, "", bearer...); status != 200 {
		t.Errorf("the second session's page: %d", status)
	}
	folders, err := filepath.Glob(filepath.Join(s.dir, "sessions", "*"))
	if err != nil || len(folders) != 1 {
		t.Errorf("folders left: %q, %v", folders, err)
	}
}

func TestStartPageShowsProgress(t *testing.T) {
	s := start(t)
	t.Setenv(state.DirEnv, s.dir)
	bearer := []string{"Authorization", "Bearer " + s.At().Token}
	if code, text := ask(t, s, "GET", "/", "", bearer...); code != 200 || !strings.Contains(text, "No graded cell has been judged yet") {
		t.Errorf("without progress: %d %s", code, text)
	}
	if code, text := ask(t, s, "GET", "/replay/outbox/relay", "", bearer...); code != 404 || !strings.Contains(text, "o verdict yet") {
		t.Errorf("without a verdict: %d %s", code, text)
	}
	trace := &wire.Trace{Version: wire.TraceVersion, Messages: []wire.Message{{Seq: 1, Step: true, Name: "COMMIT <script>",
		Point: wire.Point{Process: 1, Protocol: wire.PG, Conn: 1, Dir: wire.ToServer}}}}
	if err := exercise.Record(crash.Verdict{Version: 1, Exercise: "outbox/relay", Verdict: crash.Pass, Golden: trace}, nil); err != nil {
		t.Fatal(err)
	}
	if err := exercise.Record(crash.Verdict{Version: 1, Exercise: "outbox/relay", Verdict: crash.Fail, Golden: trace,
		Failure:    &crash.Failure{Invariant: "no-lost-event", Trace: trace},
		Invariants: []crash.InvariantResult{{Name: "no-lost-event"}}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, text := ask(t, s, "GET", "/", "", bearer...); !strings.Contains(text, "outbox/relay") || !strings.Contains(text, "broke no-lost-event") || !strings.Contains(text, "replay/outbox/relay") {
		t.Errorf("the start page does not show the verdict: %s", text)
	}
	if code, text := ask(t, s, "GET", "/replay/outbox/relay", "", bearer...); code != 200 || strings.Contains(text, "COMMIT <script>") || !strings.Contains(text, "COMMIT") || !strings.Contains(text, "your last passing run") {
		t.Errorf("the recorded view: %d %.300s", code, text)
	}
	if code, _ := ask(t, s, "GET", "/replay/..%2F..%2F/servers", "", bearer...); code != 404 {
		t.Errorf("a way out of the folder: %d, want 404", code)
	}
}
