package terminal

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/step"
	"crashcourse/pkg/view"
	"crashcourse/pkg/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs; run go test ./cmd/crashcourse/internal/terminal -update and look at the difference.\ngot:\n%s", path, got)
	}
}

// tape makes messages as a proxy would have seen them.
type tape struct{ trace wire.Trace }

func (t *tape) add(process int, p wire.Protocol, dir wire.Direction, name string, e wire.Effect) *wire.Message {
	n := 1
	for _, m := range t.trace.Messages {
		if m.Process == process && m.Protocol == p && m.Dir == dir {
			n++
		}
	}
	t.trace.Messages = append(t.trace.Messages, wire.Message{Seq: len(t.trace.Messages) + 1, Step: true, Type: "Query", Name: name, Effect: e,
		Point: wire.Point{Process: process, Protocol: p, Conn: 1, Dir: dir, Index: n}})
	return &t.trace.Messages[len(t.trace.Messages)-1]
}

func (t *tape) query(process int, name string, e wire.Effect) {
	t.add(process, wire.PG, wire.ToServer, name, e)
	t.add(process, wire.PG, wire.ToClient, name+" done", wire.Done)
}

// lostEvent is the dual write, crashed between its two halves.
func lostEvent() view.Recording {
	var t tape
	t.query(1, "BEGIN", wire.NoEffect)
	t.query(1, "INSERT orders", wire.Write)
	t.trace.Messages[2].Detail = "INSERT INTO orders (id, customer, total_cents) VALUES ($1, $2, $3)"
	t.query(1, "COMMIT", wire.Commit)
	m := t.add(1, wire.AMQP, wire.ToServer, "basic.publish order.placed", wire.Publish)
	m.DeliveryTag, m.Fault = 1, "kill"
	t.query(2, "SELECT orders", wire.NoEffect)
	orders := func(rows ...[]string) view.Thing {
		return view.Thing{Kind: "table", Name: "orders", Columns: []string{"id", "customer", "state"}, Rows: rows}
	}
	queue := view.Thing{Kind: "queue", Name: "shipping", Columns: []string{"routing key", "message id", "body"}}
	old, placed := []string{"o-1", "Ada", "shipped"}, []string{"o-2", "Grace", "new"}
	return view.Recording{Version: view.RecordingVersion, Title: "Verdict on outbox/place: fail", Trace: t.trace,
		Lives: []view.Life{{Process: 1, Work: "place", To: 7, End: "was crashed"}, {Process: 2, Work: "place", From: 7}},
		Scenes: []view.Scene{
			{After: 0, Things: []view.Thing{orders(old), queue}},
			{After: 6, Things: []view.Thing{orders(old, placed), queue}},
		},
		Broken: []view.Broken{{Invariant: "every order ships", After: 9, Says: "each order in the table has its message in the queue", Detail: "o-2 has none"}},
	}
}

func press(t *testing.T, m *Model, keys ...string) tea.Cmd {
	t.Helper()
	codes := map[string]tea.Key{
		"right": {Code: tea.KeyRight}, "left": {Code: tea.KeyLeft}, "up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown},
		"home": {Code: tea.KeyHome}, "end": {Code: tea.KeyEnd}, "pgdown": {Code: tea.KeyPgDown}, "pgup": {Code: tea.KeyPgUp},
		"space": {Code: ' ', Text: " "}, "tab": {Code: tea.KeyTab}, "ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "esc": {Code: tea.KeyEscape},
	}
	var cmd tea.Cmd
	for _, k := range keys {
		key, ok := codes[k]
		if !ok {
			key = tea.Key{Code: rune(k[0]), Text: k}
		}
		_, cmd = m.Update(tea.KeyPressMsg(key))
	}
	return cmd
}

func size(m *Model, w, h int) { m.Update(tea.WindowSizeMsg{Width: w, Height: h}) }

// shown is the screen without its colours.
func shown(m *Model) string {
	lines := strings.Split(ansi.Strip(m.View().Content), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

func says(t *testing.T, m *Model, what ...string) {
	t.Helper()
	s := strings.Join(strings.Fields(shown(m)), " ")
	for _, w := range what {
		if !strings.Contains(s, strings.Join(strings.Fields(w), " ")) {
			t.Errorf("the screen does not say %q:\n%s", w, shown(m))
		}
	}
}

func TestScreens(t *testing.T) {
	for _, c := range []struct {
		name string
		w, h int
		keys []string
	}{
		{"start-80", 80, 24, nil},
		{"commit-80", 80, 24, []string{"e", "e"}},
		{"crash-80", 80, 24, []string{"f"}},
		{"broke-40", 40, 24, []string{"b"}},
		{"commit-140", 140, 30, []string{"e", "e"}},
		{"help-80", 80, 24, []string{"?"}},
		{"help-40", 40, 16, []string{"?", "d"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New(lostEvent())
			size(m, c.w, c.h)
			press(t, m, c.keys...)
			golden(t, c.name, shown(m))
		})
	}
}

func TestKeys(t *testing.T) {
	m := New(lostEvent())
	for _, c := range []struct {
		keys string
		at   int
		note string
	}{
		{"left", -1, firstStep}, {"right", 0, ""}, {"space", 1, ""}, {"n", 2, ""}, {"p", 1, ""}, {"left", 0, ""},
		{"e", 2, ""}, {"e", 4, ""}, {"e", 6, ""}, {"e", 6, noEffect}, {"E", 4, ""}, {"E", 2, ""}, {"E", 2, noEffectThere},
		{"end", 8, ""}, {"right", 8, lastStep}, {"home", -1, ""}, {"b", 8, ""}, {"b", 8, ""},
		{"home f", 6, ""}, {"f", 8, ""}, {"f", 8, noFault}, {"pgup", 0, ""}, {"pgdown", 8, ""},
		{"? x", 8, ""}, {"down", 8, lastStep}, {"up", 7, ""}, {"z", 7, ""},
	} {
		press(t, m, strings.Fields(c.keys)...)
		m.View()
		if m.at != c.at || m.note != c.note {
			t.Fatalf("after %s: step %d and %q, want %d and %q", c.keys, m.at, m.note, c.at, c.note)
		}
	}
	for _, key := range []string{"q", "ctrl+c"} {
		cmd := press(t, m, key)
		if cmd == nil {
			t.Fatalf("%s does not quit", key)
		}
		if _, ok := cmd().(tea.QuitMsg); !ok {
			t.Errorf("%s does not quit", key)
		}
	}
	empty := New(view.Recording{})
	press(t, empty, "right", "left", "e", "E", "f", "b", "end", "pgdown", "d", "u", "w", "c")
	says(t, empty, noMessages, noSteps, noScenes)
}

func TestWhatIsSaid(t *testing.T) {
	m := New(lostEvent())
	says(t, m, nothingSent, "[table] orders: 1 row", "[queue] shipping: empty")
	press(t, m, "e")
	says(t, m, "place sends INSERT orders to PostgreSQL.", "1 write is not committed yet.", "INSERT INTO orders (id")
	press(t, m, "right")
	says(t, m, "PostgreSQL answers place: INSERT orders done.")
	press(t, m, "e")
	says(t, m, "1 write is committed now.")
	press(t, m, "right")
	says(t, m, "[table] orders: 2 rows, +1 new", "+ o-2")
	press(t, m, "right")
	says(t, m, "basic.publish order.placed #1 from place never reaches RabbitMQ.", "Here the fault struck: killed at p1.amqp1>1.", "place starts again")
	press(t, m, "b")
	says(t, m, "every order ships broke here: each order in the table has its message in the queue: o-2 has none.")
}

// many is a recording of n messages, with a table that changes at each.
func many(n int) view.Recording {
	var rec view.Recording
	for i := range n {
		rec.Trace.Messages = append(rec.Trace.Messages, wire.Message{Seq: i + 1, Step: true, Name: fmt.Sprintf("UPDATE t%d", i+1), Effect: wire.Write,
			Point: wire.Point{Process: 1, Protocol: wire.PG, Conn: 1, Dir: wire.ToServer, Index: i + 1}})
		th := view.Thing{Kind: "table", Name: "t", Columns: []string{"id", "n"}}
		for r := range 50 {
			th.Rows = append(th.Rows, []string{fmt.Sprint(r), fmt.Sprint(max(0, i-r))})
		}
		rec.Scenes = append(rec.Scenes, view.Scene{After: i + 1, Things: []view.Thing{th}})
	}
	return rec
}

// TestManyMessages: the selected message shows wherever one goes, in every size.
func TestManyMessages(t *testing.T) {
	m := New(many(5000))
	for _, w := range []struct{ w, h int }{{80, 24}, {40, 24}, {200, 60}, {40, 8}, {20, 5}} {
		size(m, w.w, w.h)
		press(t, m, "home")
		for i, key := range []string{"right", "end", "pgup", "pgup", "pgdown", "home", "pgdown", "pgdown", "left", "e", "E", "end", "left"} {
			press(t, m, key)
			if m.at >= 0 && !strings.Contains(shown(m), fmt.Sprintf("▸ ● %*d ", 4, m.at+1)) && !strings.Contains(shown(m), fmt.Sprintf("▸ ●%*d ", 5, m.at+1)) {
				t.Fatalf("%dx%d, key %d (%s): message %d does not show:\n%s", w.w, w.h, i, key, m.at+1, shown(m))
			}
		}
	}
	size(m, 80, 24)
	press(t, m, "home", "right")
	for range 4 {
		says(t, m, "more lines")
		before := shown(m)
		press(t, m, "d")
		if shown(m) == before {
			t.Fatal("d does not go down in the tables")
		}
	}
	press(t, m, "right")
	if m.down > 0 && !strings.Contains(shown(m), "[table] t") {
		t.Errorf("the table that has changed does not show:\n%s", shown(m))
	}
}

// TestSizes: whatever the size, the screen has as many lines as the terminal and
// none is wider.
func TestSizes(t *testing.T) {
	m := New(lostEvent())
	for _, keys := range [][]string{{"home"}, {"f"}, {"b"}, {"e"}, {"?"}} {
		press(t, m, keys...)
		for w := 0; w <= 150; w += 3 {
			for h := 0; h <= 45; h += 4 {
				size(m, w, h)
				fits(t, m, w, h)
			}
		}
	}
}

func fits(t *testing.T, m *Model, w, h int) {
	t.Helper()
	lines := strings.Split(m.View().Content, "\n")
	if w >= leastWidth && h >= leastHeight && len(lines) != h {
		t.Fatalf("%dx%d: %d lines\n%s", w, h, len(lines), shown(m))
	}
	for _, l := range lines {
		if n := ansi.StringWidth(l); n > w {
			t.Fatalf("%dx%d: a line of %d columns: %q", w, h, n, l)
		}
	}
}

var escape = regexp.MustCompile(`\x1b\[[0-9;:]*m`)

// ours are the escapes that the screen itself uses.
func ours() map[string]bool {
	all := map[string]bool{}
	for l := usual; l <= selected; l++ {
		for _, e := range escape.FindAllString(l.of("x"), -1) {
			all[e] = true
		}
	}
	return all
}

// FuzzScreen puts a string wherever a program under test can: it never acts on
// the terminal.
func FuzzScreen(f *testing.F) {
	for _, s := range []string{"plain", "", "\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "a\r\nb\tc\x00", "\u202eturned\u2066", "\u009b31m", "e\u0301\u0301\u0301\u0301\u0301",
		"👩\u200d🚀 汉字", "\xff\xfe", strings.Repeat("long ", 400), "{n} {text} {message}", "\u2028\u2029\ue000"} {
		f.Add(s, 80, 24)
		f.Add(s, 40, 10)
	}
	known := ours()
	f.Fuzz(func(t *testing.T, s string, w, h int) {
		w, h = min(max(w, 0), 300), min(max(h, 0), 100)
		rec := lostEvent()
		rec.Title = s
		for i := range rec.Trace.Messages {
			rec.Trace.Messages[i].Name, rec.Trace.Messages[i].Detail, rec.Trace.Messages[i].Type = s, s, s
		}
		rec.Trace.Messages[6].Fault = s
		rec.Trace.Messages[3].Protocol = wire.Protocol(s)
		for i := range rec.Lives {
			rec.Lives[i].Work = s
		}
		rec.Lives[0].End = s
		rec.Broken[0] = view.Broken{Invariant: s, Says: s, Detail: s, After: 9}
		rec.Scenes[1].Things = []view.Thing{{Kind: s, Name: s, Note: s, Columns: []string{s, s}, Rows: [][]string{{s}, {s, s, s}}, More: 3}}
		m := New(rec)
		m.live = &live{ctx: context.Background(), state: step.Waiting,
			pending: []step.Held{{Message: rec.Trace.Messages[2], ID: s}, {Message: rec.Trace.Messages[6], ID: "b"}}}
		size(m, w, h)
		for _, end := range []error{nil, errors.New(s)} {
			m.finish(done{end})
			for _, key := range []string{"home", "right", "right", "right", "right", "E", "end", "tab", "home"} {
				press(t, m, key)
				if end != nil {
					m.finish(done{end})
				}
				fits(t, m, w, h)
				screen := m.View().Content
				for _, e := range escape.FindAllString(screen, -1) {
					if !known[e] {
						t.Fatalf("%q is not of the screen itself", e)
					}
				}
				rest := strings.ReplaceAll(escape.ReplaceAllString(screen, ""), "\n", "")
				if i := strings.IndexFunc(rest, actsOnTerminal); i >= 0 {
					t.Fatalf("%q acts on the terminal", rest[i:])
				}
			}
		}
	})
}

// actsOnTerminal is a character that does more than show.
func actsOnTerminal(r rune) bool {
	return r != '\u200c' && r != '\u200d' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// TestColourSaysNothing: without colours the screen says the same.
func TestColourSaysNothing(t *testing.T) {
	m := New(lostEvent())
	press(t, m, "f")
	if !strings.Contains(m.View().Content, look(bad).of("x")[:4]) {
		t.Fatal("nothing is coloured")
	}
	says(t, m, "▸ ✗", "never arrived", "✗ killed at", "● 5 place → PostgreSQL COMMIT")
}

// fake is a session whose commands end when the test lets them.
type fake struct {
	asked  chan step.Command
	answer chan error
	events chan []step.Event
	closed chan string
}

func (f *fake) Do(ctx context.Context, c step.Command) error {
	f.asked <- c
	select {
	case err := <-f.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fake) Close(why string) { f.closed <- why }

func (f *fake) Next(ctx context.Context) ([]step.Event, error) {
	select {
	case e, ok := <-f.events:
		if !ok {
			return nil, step.ErrOver
		}
		return e, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func held(m wire.Message) step.Held {
	return step.Held{Message: m, ID: m.Point.String(), Faults: []crash.Fault{crash.Kill, crash.Cut, crash.Blackhole}}
}

// following is a model with a session in which two messages wait.
func following(t *testing.T) (*Model, *fake) {
	t.Helper()
	f := &fake{asked: make(chan step.Command, 1), answer: make(chan error, 1), events: make(chan []step.Event, 1), closed: make(chan string, 1)}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	m := newLive(ctx, f, f)
	rec := lostEvent()
	rec.Broken = nil
	rec.Lives = []view.Life{{Process: 1, Work: "place"}, {Process: 2, Slot: 1, Work: "ship"}}
	all := rec.Trace.Messages
	all[6].Fault = ""
	rec.Trace.Messages = all[:4:4]
	rec.Scenes = rec.Scenes[:1:1]
	f.tell(t, m, step.Event{Type: step.Reset, Recording: &rec, Pending: []step.Held{held(all[4]), held(all[7])}, State: step.Waiting})
	return m, f
}

// tell gives the model events as the feed would.
func (f *fake) tell(t *testing.T, m *Model, events ...step.Event) {
	t.Helper()
	f.events <- events
	_, cmd := m.Update(m.live.next())
	if m.live != nil && cmd == nil {
		t.Fatal("it does not follow the session any more")
	}
}

// run lets a command go on beside the screen.
func run(cmd tea.Cmd) chan tea.Msg {
	c := make(chan tea.Msg, 1)
	go func() { c <- cmd() }()
	return c
}

func TestStepping(t *testing.T) {
	m, f := following(t)
	says(t, m, "step 4 of 4", "▸ ● ? place → PostgreSQL COMMIT", "next", "COMMIT from place to PostgreSQL waits for you. 1 more: tab chooses.", "space pass")

	// A command runs beside the screen.
	cmd := press(t, m, "space")
	result := run(cmd)
	if c := <-f.asked; c.Act != step.Pass || c.ID != "" {
		t.Errorf("asked for %+v", c)
	}
	says(t, m, "Passing …")
	if press(t, m, "space") != nil || m.note != busy {
		t.Errorf("a command while one is carried out: %q", m.note)
	}
	press(t, m, "left")
	if m.at != 2 {
		t.Error("the screen does not move while a command is carried out")
	}
	press(t, m, "end")
	f.answer <- nil
	m.Update(<-result)
	all := lostEvent().Trace.Messages
	f.tell(t, m, step.Event{Type: step.Passed, Messages: all[4:5], Scene: &lostEvent().Scenes[1]},
		step.Event{Type: step.Pending, Pending: []step.Held{held(all[7])}, State: step.Waiting})
	says(t, m, "step 5 of 5", "1 write is committed now.", "+1 new", "SELECT orders from ship to PostgreSQL waits for you.")

	// An error is a line at the bottom.
	result = run(press(t, m, "k"))
	if c := <-f.asked; c.Act != step.Nack || c.ID != all[7].Point.String() {
		t.Errorf("asked for %+v", c)
	}
	f.answer <- errors.New("nack cannot strike before \x1b[2JSELECT")
	m.Update(<-result)
	says(t, m, "That did not work: nack cannot strike before ␛[2JSELECT.")
	press(t, m, "left")
	if m.note != "" {
		t.Error("the error stays for ever")
	}

	// Rewind goes to the selected message.
	press(t, m, "left", "left")
	at := m.message(m.at).Seq
	result = run(press(t, m, "w"))
	if c := <-f.asked; c.Act != step.Rewind || c.Seq != at {
		t.Errorf("asked for %+v, want a rewind to %d", c, at)
	}
	f.answer <- nil
	m.Update(<-result)
	press(t, m, "end")
	if press(t, m, "w") != nil || m.note != rewindWhere {
		t.Error("the last message can be rewound to")
	}
}

func TestEveryCommand(t *testing.T) {
	for key, act := range commands {
		m, f := following(t)
		press(t, m, "left")
		result := run(press(t, m, key))
		if c := <-f.asked; c.Act != act {
			t.Errorf("%s asks for %s", key, c.Act)
		}
		f.answer <- nil
		m.Update(<-result)
		if acts[act] == "" {
			t.Errorf("there are no words for %s", act)
		}
	}
}

func TestChooseWhichWaits(t *testing.T) {
	m, f := following(t)
	second := m.live.pending[1].ID
	press(t, m, "tab")
	says(t, m, "▸ ? ship → PostgreSQL SELECT orders")
	result := run(press(t, m, "space"))
	if c := <-f.asked; c.ID != second {
		t.Errorf("passed %q, want %q", c.ID, second)
	}
	f.answer <- nil
	m.Update(<-result)
	press(t, m, "tab", "tab")
	if h := m.chosen(); h.ID == second {
		t.Error("tab does not come round")
	}
	f.tell(t, m, step.Event{Type: step.Pending, State: step.Running})
	says(t, m, stateRunning)
	press(t, m, "tab")
	says(t, m, noneWaits)
}

// TestLookingBack: who looks at an earlier message stays there.
func TestLookingBack(t *testing.T) {
	m, f := following(t)
	press(t, m, "left", "left")
	at := m.at
	f.tell(t, m, step.Event{Type: step.Passed, Messages: lostEvent().Trace.Messages[4:5]})
	if m.at != at {
		t.Errorf("it has gone from step %d to %d by itself", at, m.at)
	}
	press(t, m, "end")
	f.tell(t, m, step.Event{Type: step.Passed, Messages: lostEvent().Trace.Messages[5:6]})
	if m.at != 5 {
		t.Errorf("at step %d: the newest does not stay selected", m.at)
	}
}

func TestStates(t *testing.T) {
	m, f := following(t)
	for state, text := range map[step.State]string{step.Crashed: stateCrashed, step.Ended: stateEnded, step.Running: stateRunning} {
		f.tell(t, m, step.Event{Type: step.Pending, State: state})
		says(t, m, text)
	}
	f.tell(t, m, step.Event{Type: step.Note, Text: "80 messages have passed."})
	says(t, m, "80 messages have passed.")
	long := strings.Repeat("It goes on and on. ", 8) + "Here it ends."
	f.tell(t, m, step.Event{Type: step.Note, Text: long})
	says(t, m, long)
	size(m, 40, 24)
	fits(t, m, 40, 24)
	size(m, 80, 24)
	f.tell(t, m, step.Event{Type: step.Lives, Lives: []view.Life{{Process: 1, Work: "place", To: 4, End: "ended: exit status 2; it printed: " + long}}})
	says(t, m, "place ended: exit status 2; it printed: "+long)
	f.tell(t, m, step.Event{Type: step.Over, Text: "The lab stops."})
	press(t, m, "left")
	says(t, m, "The session is over: The lab stops. You can still look at what happened.", "session over", "→ next")
	if _, ok := press(t, m, "q")().(tea.QuitMsg); !ok {
		t.Error("q does not quit")
	}
}

func TestQuitEndsTheSession(t *testing.T) {
	m, f := following(t)
	result := run(press(t, m, "q"))
	<-f.closed
	says(t, m, closing)
	f.tell(t, m, step.Event{Type: step.Over, Text: "You have ended it."})
	_, cmd := m.Update(<-result)
	if _, ok := cmd().(tea.QuitMsg); !ok {
		t.Error("it does not quit")
	}
	// Who cannot wait presses Ctrl-C again.
	m, _ = following(t)
	press(t, m, "ctrl+c")
	if _, ok := press(t, m, "ctrl+c")().(tea.QuitMsg); !ok {
		t.Error("a second Ctrl-C does not quit")
	}
}
