package view

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/wire"
)

// long is a recording of n messages with tables to match.
func long(n int) Recording {
	r := Recording{Version: RecordingVersion, Title: "a long run", Broken: []Broken{{Invariant: "no-lost-event", After: n}}}
	r.Trace.Version = wire.TraceVersion
	for i := 1; i <= n; i++ {
		r.Trace.Messages = append(r.Trace.Messages, wire.Message{Seq: i, Step: true, Name: fmt.Sprintf("INSERT outbox %d", i), Effect: wire.Write,
			Time: time.Duration(i), Detail: strings.Repeat("détail ", 60),
			Point: wire.Point{Process: 1, Protocol: wire.PG, Conn: 1, Dir: wire.ToServer, Index: i}})
		if i%3 == 0 {
			t := Thing{Kind: "table", Name: "outbox", Columns: []string{"id", "payload"}}
			for k := range 50 {
				t.Rows = append(t.Rows, []string{fmt.Sprint(k), strings.Repeat("é", 119)})
			}
			r.Scenes = append(r.Scenes, Scene{After: i, Things: []Thing{t}})
		}
	}
	return r
}

func TestRecordedIsBounded(t *testing.T) {
	for _, n := range []int{0, 1, 50, 500, 5000} {
		r := long(n)
		html, err := RecordedHTML(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(html) > MaxRecorded {
			t.Errorf("%d messages take %d bytes", n, len(html))
		}
		_, rest, _ := strings.Cut(html, `class="recording">`)
		data, _, _ := strings.Cut(rest, "</script>")
		var back Recording
		if err := json.Unmarshal([]byte(data), &back); err != nil {
			t.Fatalf("%d messages: %v", n, err)
		}
		if got := len(back.Trace.Messages) + back.Trace.Dropped; got != n {
			t.Errorf("of %d messages %d are shown or counted", n, got)
		}
		for _, s := range back.Scenes {
			if got := len(s.Things[0].Rows) + s.Things[0].More; got != 50 {
				t.Errorf("%d messages: of 50 rows %d are shown or counted", n, got)
			}
		}
		if n > 0 && back.Trace.Messages[len(back.Trace.Messages)-1].Seq != n {
			t.Errorf("%d messages: the last one is left out", n)
		}
		if len(r.Trace.Messages) != n || n > 2 && len(r.Scenes[0].Things[0].Rows) != 50 {
			t.Errorf("%d messages: the recording itself was changed", n)
		}
	}
}

func TestRecordedPageStandsAlone(t *testing.T) {
	r := long(3)
	r.Title = `</title><script>alert(1)</script>`
	page, err := RecordedPage(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(page, "<script>alert") {
		t.Error("the title breaks out")
	}
	for _, want := range []string{"script-src &#39;sha256-", "connect-src &#39;none&#39;", "<h1>"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}

func TestRecordOfAVerdict(t *testing.T) {
	failing := long(6).Trace
	failing.Messages[2].Step = false // protocol detail
	failing.Messages[4].Fault = "kill"
	v := crash.Verdict{Exercise: "outbox/relay", Verdict: crash.Fail,
		Invariants: []crash.InvariantResult{{Name: "no-lost-event", Says: "Every event is published."}},
		Points:     []crash.PointResult{{At: "p1.pg1>5", Fault: "kill", Outcome: crash.Violated, Violation: "no-lost-event"}},
		Failure: &crash.Failure{Invariant: "no-lost-event", Detail: "event 3 is gone", Trace: &failing,
			Scenes: []crash.Scene{{After: 2, Tables: []crash.Table{{Name: "outbox"}, {Name: "queue events"}}}}}}
	r := Record(v, nil)
	if len(r.Trace.Messages) != 5 {
		t.Errorf("%d messages, want the 5 steps", len(r.Trace.Messages))
	}
	if len(r.Broken) != 1 || r.Broken[0].Says != "Every event is published." || r.Broken[0].After != 6 {
		t.Errorf("broken: %+v", r.Broken)
	}
	if things := r.Scenes[0].Things; things[0].Kind != "table" || things[1].Kind != "queue" || things[1].Name != "events" {
		t.Errorf("things: %+v", things)
	}
	if len(r.Points) != 1 || r.Points[0].Outcome != crash.Violated {
		t.Errorf("points: %+v", r.Points)
	}
	if r.Ghost != nil {
		t.Errorf("a ghost out of nothing: %+v", r.Ghost)
	}
	v.Failure.Fault, v.Golden = "kill", &failing
	if r := Record(v, nil); r.Ghost == nil || r.Ghost.Name != "the run without a fault" || len(r.Ghost.Trace.Messages) != 5 {
		t.Errorf("the ghost is %+v, want the run without faults", r.Ghost)
	}
	if r := Record(v, &wire.Trace{}); r.Ghost == nil || r.Ghost.Name != "your last passing run" || len(r.Ghost.Trace.Messages) != 0 {
		t.Errorf("the ghost is %+v, want the run that passed", r.Ghost)
	}
	if r := Record(crash.Verdict{}, nil); len(r.Trace.Messages) != 0 {
		t.Errorf("a zero verdict: %+v", r)
	}
}
