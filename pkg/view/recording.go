package view

import (
	"strings"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/wire"
)

// RecordingVersion is the version of the JSON form of a [Recording].
const RecordingVersion = 1

// Recording is one run with all that is needed to look at it again, step by
// step. Its JSON form is what the view that moves reads.
type Recording struct {
	Version int        `json:"version"` // RecordingVersion
	Title   string     `json:"title"`
	Trace   wire.Trace `json:"trace"`
	Scenes  []Scene    `json:"scenes,omitempty"` // ordered by After
	Lives   []Life     `json:"lives,omitempty"`
	Broken  []Broken   `json:"broken,omitempty"`
	Ghost   *Ghost     `json:"ghost,omitempty"`
	Points  []Point    `json:"points,omitempty"` // the crash matrix that this run is part of
}

// Scene is what a reader from outside saw in the tables and queues once a
// message had passed, and until the next Scene.
type Scene struct {
	After  int     `json:"after"` // the message's number in the trace; 0 is the start
	Things []Thing `json:"things"`
}

// Thing is a table or a queue in a [Scene].
type Thing struct {
	Kind    string     `json:"kind"` // table or queue
	Name    string     `json:"name"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
	More    int        `json:"more,omitempty"` // rows that are not shown
	Note    string     `json:"note,omitempty"`
}

// Life is the time of one process in a run. The process that replaces a crashed
// one has its slot.
type Life struct {
	Process int    `json:"process"` // as in [wire.Point]
	Slot    int    `json:"slot"`
	Work    string `json:"work"`
	From    int    `json:"from"`          // the number of the message before its start
	To      int    `json:"to,omitempty"`  // the number of the last message before its end; 0: see End
	End     string `json:"end,omitempty"` // how it ended; empty: it has not
}

// Broken is an invariant that did not hold.
type Broken struct {
	Invariant string `json:"invariant"`
	After     int    `json:"after"` // the number of the message after which this was certain
	Detail    string `json:"detail,omitempty"`
	Says      string `json:"says,omitempty"` // the invariant in one sentence
}

// Ghost is another run, to compare with.
type Ghost struct {
	Name  string     `json:"name"`
	Trace wire.Trace `json:"trace"`
}

// Point is a row and column of the crash matrix: see [crash.PointResult].
type Point struct {
	At        string        `json:"at"`
	Message   string        `json:"message"`
	Fault     string        `json:"fault"`
	Outcome   crash.Outcome `json:"outcome"`
	Violation string        `json:"violation,omitempty"`
	Detail    string        `json:"detail,omitempty"`
	Then      string        `json:"then,omitempty"`
	Pruned    bool          `json:"pruned,omitempty"`
}

// Record makes a recording of the failing run of v, or of its run without
// faults when none failed. The ghost behind it is passed, the last run of the
// exercise that passed; when that is nil, a failing run has v's own run without
// faults behind it. It is never the reference's run: the statements in it would
// give the answer away.
func Record(v crash.Verdict, passed *wire.Trace) Recording {
	w := english()
	r := Recording{Version: RecordingVersion, Title: fill(w.VerdictOf, "exercise", v.Exercise, "state", v.Verdict)}
	trace := v.Golden
	failed := v.Failure != nil && v.Failure.Trace != nil
	switch {
	case passed != nil:
		r.Ghost = &Ghost{Name: w.GhostPassed, Trace: steps(*passed)}
	case failed && v.Golden != nil && v.Failure.Fault != "":
		r.Ghost = &Ghost{Name: w.GhostGolden, Trace: steps(*v.Golden)}
	}
	if f := v.Failure; failed {
		trace = f.Trace
		r.Scenes = scenes(f.Scenes)
		b := Broken{Invariant: f.Invariant, Detail: f.Detail}
		for _, i := range v.Invariants {
			if i.Name == f.Invariant {
				b.Says = i.Says
			}
		}
		for _, m := range trace.Messages {
			b.After = m.Seq
		}
		r.Broken = []Broken{b}
	}
	if trace != nil {
		r.Trace = steps(*trace)
	}
	for _, p := range v.Points {
		r.Points = append(r.Points, Point{At: p.At, Message: p.Message, Fault: p.Fault, Outcome: p.Outcome,
			Violation: p.Violation, Detail: p.Detail, Then: p.Then, Pruned: p.Pruned})
	}
	return r
}

// steps leaves out protocol detail.
func steps(t wire.Trace) wire.Trace {
	out := wire.Trace{Version: t.Version, Dropped: t.Dropped}
	for _, m := range t.Messages {
		if m.Step || m.Fault != "" {
			out.Messages = append(out.Messages, m)
		}
	}
	return out
}

func scenes(from []crash.Scene) []Scene {
	var out []Scene
	for _, s := range from {
		scene := Scene{After: s.After}
		for _, t := range s.Tables {
			thing := Thing{Kind: "table", Name: t.Name, Columns: t.Columns, Rows: t.Rows}
			if name, ok := strings.CutPrefix(t.Name, "queue "); ok {
				thing.Kind, thing.Name = "queue", name
			}
			scene.Things = append(scene.Things, thing)
		}
		out = append(out, scene)
	}
	return out
}
