package view

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"crashcourse/pkg/wire"
)

// rows says a list in a line a row.
func (l List) rows(after int) []string {
	var out []string
	for _, r := range l.Rows {
		s := fmt.Sprintf("%d %s", r.Step, r.Text)
		if r.Kind != ListMessage {
			s = fmt.Sprintf("%d -- %s", r.Step, r.Text)
		}
		if r.Effect {
			s += " *"
		}
		if r.Stopped {
			s += " stopped"
		}
		if f := r.FateAfter(after); f != FateNone {
			s += " " + []string{"", "open", "kept", "dropped"}[f]
		}
		out = append(out, s)
	}
	return out
}

func TestListOfACrash(t *testing.T) {
	tp := newTape()
	tp.query(1, "BEGIN", wire.NoEffect)
	tp.query(1, "INSERT orders", wire.Write)
	tp.send(1, wire.PG, "COMMIT", wire.Commit).Fault = "kill"
	tp.query(2, "BEGIN", wire.NoEffect)
	tp.query(2, "INSERT orders", wire.Write)
	tp.query(2, "COMMIT", wire.Commit)
	tp.publish(2, 1)
	rec := Recording{Title: "two\nlines", Trace: tp.trace, Broken: []Broken{{Invariant: "every order ships", After: tp.trace.Messages[len(tp.trace.Messages)-1].Seq}}}

	bare := NewList(rec)
	if bare.Title != "two lines" {
		t.Errorf("title %q", bare.Title)
	}
	want := []string{
		"0 BEGIN", "1 BEGIN done", "2 INSERT orders * dropped", "3 INSERT orders done", "4 COMMIT * stopped", "4 -- killed at p1.pg1>3",
		"4 -- process 2 starts in place of process 1",
		"5 BEGIN", "6 BEGIN done", "7 INSERT orders * kept", "8 INSERT orders done", "9 COMMIT *", "10 COMMIT done",
		"11 basic.publish order.placed #1 *", "11 -- every order ships broke here",
	}
	if got := bare.rows(11); !slices.Equal(got, want) {
		t.Errorf("got:\n%s", strings.Join(got, "\n"))
	}
	if got := bare.rows(3)[2]; got != "2 INSERT orders * open" {
		t.Errorf("before the crash the write is %q", got)
	}
	if got := bare.rows(8)[9]; got != "7 INSERT orders * open" {
		t.Errorf("before its COMMIT the write is %q", got)
	}

	rec.Lives = []Life{
		{Process: 1, Work: "place", From: 0, To: tp.trace.Messages[6].Seq, End: "was crashed"},
		{Process: 2, Work: "place", From: tp.trace.Messages[6].Seq},
	}
	live := NewList(rec)
	if got := live.rows(11)[6]; got != "4 -- place starts again" {
		t.Errorf("the restart is %q", got)
	}
	if p := live.Rows[live.Steps[5]].Process; p != "place" {
		t.Errorf("the second process is called %q", p)
	}
}

// TestListWithLives: a process may be crashed while none of its messages waits,
// and two may do the same work.
func TestListWithLives(t *testing.T) {
	tp := newTape()
	tp.query(1, "BEGIN", wire.NoEffect)
	tp.query(1, "INSERT orders", wire.Write)
	last := tp.trace.Messages[len(tp.trace.Messages)-1].Seq
	l := NewList(Recording{Trace: tp.trace, Lives: []Life{
		{Process: 1, Work: "work", To: last, End: "was crashed"},
		{Process: 2, Slot: 1, Work: "work"},
	}})
	got := l.rows(3)
	if got[2] != "2 INSERT orders * dropped" || got[len(got)-1] != "3 -- work (1) was crashed" {
		t.Errorf("got:\n%s", strings.Join(got, "\n"))
	}
	if r := l.Row(wire.Message{Point: wire.Point{Process: 2}, Name: "COMMIT", Effect: wire.Commit}); r.Process != "work (2)" || !r.Effect || r.Text != "COMMIT" {
		t.Errorf("a message that waits: %+v", r)
	}
}

func TestListOfNothing(t *testing.T) {
	l := NewList(Recording{Broken: []Broken{{Invariant: "x"}}, Lives: []Life{{Process: 1, Work: "a"}}})
	if got := l.rows(0); !slices.Equal(got, []string{"-1 -- x broke here"}) {
		t.Errorf("got %q", got)
	}
}

func TestCompare(t *testing.T) {
	table := func(more int, rows ...string) *Scene {
		th := Thing{Kind: "table", Name: "orders", Columns: []string{"id", "state"}, More: more}
		for _, r := range rows {
			th.Rows = append(th.Rows, strings.Split(r, " "))
		}
		return &Scene{Things: []Thing{th}}
	}
	for _, c := range []struct {
		name        string
		before, now *Scene
		want        []string
	}{
		{"the first look marks nothing", nil, table(0, "1 a"), []string{" 1 a"}},
		{"new, changed and gone", table(0, "1 a", "2 b", "3 c"), table(0, "1 a", "3 d", "4 e"), []string{" 1 a", "-2 b", "~3 d", "+4 e"}},
		{"a table that was not there", &Scene{}, table(0, "1 a"), []string{"+1 a"}},
		{"rows alike", table(0, "1 a", "1 a"), table(0, "1 a", "1 a", "1 a"), []string{" 1 a", " 1 a", "+1 a"}},
		{"what comes into sight is not new", table(1, "1 a", "2 b"), table(0, "2 b", "3 c"), []string{"-1 a", " 2 b", " 3 c"}},
		{"what goes out of sight is not gone", table(0, "1 a", "2 b"), table(1, "0 x", "1 a"), []string{"+0 x", " 1 a"}},
		{"the same scene", nil, nil, nil},
	} {
		if c.now == nil {
			c.now = table(0, "1 a")
			c.before, c.want = c.now, []string{" 1 a"}
		}
		d := Compare(c.before, c.now)[0]
		var got []string
		for _, r := range d.Marked {
			got = append(got, []string{" ", "+", "~", "-"}[r.Mark]+strings.Join(r.Cells, " "))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if d.News != strings.Count(strings.Join(got, ""), "+") || d.GoneCount != strings.Count(strings.Join(got, ""), "-") || d.Touched() != (strings.Trim(strings.Join(got, ""), " 0123456789abcdex") != "") {
			t.Errorf("%s: counted %d new, %d changed, %d gone", c.name, d.News, d.ChangedCount, d.GoneCount)
		}
	}
}

func TestSceneAt(t *testing.T) {
	r := Recording{Scenes: []Scene{{After: 0}, {After: 4}, {After: 9}}}
	for next, want := range map[int]int{1: 0, 4: 0, 5: 1, 9: 1, 10: 2, 0: 2} {
		if got := r.SceneAt(next); got != want {
			t.Errorf("before message %d: scene %d, want %d", next, got, want)
		}
	}
	if got := (Recording{Scenes: []Scene{{After: 3}}}).SceneAt(2); got != -1 {
		t.Errorf("before the first look: scene %d", got)
	}
}
