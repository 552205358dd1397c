package exercise

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"html"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/janpfeifer/gonb/gonbui"
	"github.com/janpfeifer/gonb/gonbui/protocol"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/state"
	"crashcourse/pkg/view"
)

// Variables that tune Check for a person at a terminal.
const (
	ModeEnv = "CRASHCOURSE_MODE" // quick or full
	SeedEnv = "CRASHCOURSE_SEED"
)

// Check judges the answer behind h as exercise id (pattern/exercise), shows the
// verdict, and fails t unless it passed. An unjudged answer fails t too, and the
// message says that it was not the answer's fault.
//
// In a process under test it does not return: it calls h as the judge asks and
// ends the process.
func Check(t testing.TB, id string, h Handler) {
	t.Helper()
	if role := os.Getenv(RoleEnv); role != "" {
		if role != id {
			t.Skipf("this process runs %s", role)
		}
		serve(h)
		os.Exit(0)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()

	r, err := request(id, t.Name())
	if err != nil {
		t.Fatal(err)
	}
	show := NewProgress(os.Stderr)
	v, err := Judge(ctx, r, show.Show)
	show.End()
	if err != nil {
		if ctx.Err() != nil {
			t.Fatalf("%s: interrupted before there was a verdict; run the cell again", id)
		}
		t.Fatal(err)
	}
	src, err := callerSource()
	if err == nil {
		v.Answer, _ = SourceHash(src, id) // it may stand in several files: then it is not known
	}
	if err := Record(v, src); err != nil {
		fmt.Fprintln(os.Stderr, "the verdict stands, but your progress could not be recorded:", err)
	}
	display(v)
	switch v.Verdict {
	case crash.Pass:
	case crash.Unjudged:
		t.Errorf("%s is unjudged, which does not count against you: %s", id, v.Error)
	default:
		t.Fail()
	}
}

// callerSource reads the file in which the learner's test stands: the first
// caller outside of the course's packages.
func callerSource() ([]byte, error) {
	for skip := 1; ; skip++ {
		_, file, _, ok := runtime.Caller(skip)
		if !ok {
			return nil, errors.New("exercise: no source")
		}
		if base := filepath.Base(file); strings.HasSuffix(base, "_test.go") {
			return os.ReadFile(file)
		}
	}
}

// request asks for a verdict on the binary that is running, restricted to one
// test.
func request(id, test string) (crash.Request, error) {
	self, err := os.Executable()
	if err != nil {
		return crash.Request{}, fmt.Errorf("exercise: find the running binary: %w", err)
	}
	servers, err := state.LoadServers()
	if err != nil {
		return crash.Request{}, err
	}
	r := crash.Request{Exercise: id, Servers: servers, Mode: crash.Mode(os.Getenv(ModeEnv)), Seed: rand.Uint64() >> 12, Program: TestProgram(self, id, test)}
	switch r.Mode {
	case "":
		r.Mode = crash.Quick
	case crash.Quick, crash.Full, crash.Unpruned:
	default:
		return r, fmt.Errorf("exercise: %s is %q; use quick or full", ModeEnv, r.Mode)
	}
	if s := os.Getenv(SeedEnv); s != "" {
		if r.Seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			return r, fmt.Errorf("exercise: %s is not a number: %w", SeedEnv, err)
		}
	}
	return r, nil
}

// TestProgram returns how the judge starts the answer that the named test in a
// test binary checks.
func TestProgram(binary, id, test string) crash.Program {
	return crash.Program{
		Path: binary,
		Args: []string{"-test.run=^" + regexp.QuoteMeta(test) + "$", "-test.timeout=0"},
		Env:  []string{RoleEnv + "=" + id, AddrEnv + "={{addr}}", "PATH=/usr/bin:/bin", "LANG=C.UTF-8"},
	}
}

// Progress shows how far a judge has come, on one line that it replaces: in a
// notebook, or in a terminal. Where there is neither it shows nothing.
type Progress struct {
	w        *os.File
	id       string // of its place in a cell's output; no two cells share one
	notebook bool
	terminal bool
	last     string
}

// NewProgress returns a Progress that writes to w, outside of notebooks.
func NewProgress(w *os.File) *Progress {
	info, err := w.Stat()
	return &Progress{w: w, id: "crashcourse-" + crand.Text(), notebook: gonbui.IsNotebook, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0 && w.Name() != os.DevNull}
}

// Show shows p in place of what was shown before.
func (s *Progress) Show(p crash.Progress) {
	text := p.Doing
	if p.Total > 0 {
		text = fmt.Sprintf("%s: %d of %d points", p.Doing, p.Done, p.Total)
		if p.Violated > 0 {
			text += fmt.Sprintf(", %d broke", p.Violated)
		}
	}
	if text == s.last {
		return
	}
	s.last = text
	switch {
	case s.notebook:
		gonbui.UpdateHTML(s.id, "<pre>"+html.EscapeString(text)+"…</pre>")
	case s.terminal:
		fmt.Fprintf(s.w, "\r\033[K%s…", text)
	}
}

// End takes the line away.
func (s *Progress) End() {
	switch {
	case s.last == "":
	case s.notebook:
		gonbui.UpdateHTML(s.id, "")
	case s.terminal:
		fmt.Fprint(s.w, "\r\033[K")
	}
}

// display shows a verdict: in a notebook as a picture, with the text for those
// who cannot see it, and elsewhere as text.
func display(v crash.Verdict) {
	if !gonbui.IsNotebook {
		if err := view.Text(os.Stdout, v, view.TextOptions{}); err != nil {
			fmt.Fprintln(os.Stderr, "the report could not be printed:", err)
		}
		return
	}
	var text strings.Builder
	picture, err := view.HTML(v)
	if err = errors.Join(err, view.Text(&text, v, view.TextOptions{})); err != nil {
		fmt.Fprintln(os.Stderr, "the report could not be drawn:", err)
	}
	if v.Failure != nil && v.Failure.Trace != nil {
		moving, err := view.RecordedHTML(Recording(v))
		if err == nil && len(picture)+len(moving) <= view.MaxHTML { // else `crashcourse replay` shows it
			picture += moving
		}
	}
	gonbui.SendData(&protocol.DisplayData{Data: map[protocol.MIMEType]any{
		protocol.MIMETextHTML:  picture,
		protocol.MIMETextPlain: text.String(),
	}})
	gonbui.Sync() // the cell ends soon, and with it what was not sent
}
