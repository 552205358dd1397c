package crash

import "crashcourse/pkg/wire"

// Outcome says what came of one crash run.
type Outcome string

// The outcomes of a run.
const (
	Held      Outcome = "ok"        // every invariant held
	Violated  Outcome = "violated"  // an invariant broke; see PointResult.Violation
	Hung      Outcome = "hung"      // the work was not finished in the time allowed
	Unreached Outcome = "unreached" // the run never came to the point
)

// Verdicts.
const (
	Pass     = "pass"
	Fail     = "fail"
	Unjudged = "unjudged" // the infrastructure failed: never counts against the learner
)

// Verdict is the judge's finding on one answer. Its JSON form is what
// `crashcourse check --json` prints.
type Verdict struct {
	Version    int               `json:"version"` // 1
	Exercise   string            `json:"exercise"`
	Verdict    string            `json:"verdict"` // pass, fail or unjudged
	Score      float64           `json:"score"`   // share of the points survived, 0 to 1
	Seed       uint64            `json:"seed"`
	Mode       string            `json:"mode"` // quick or full
	DurationMS int64             `json:"duration_ms"`
	Invariants []InvariantResult `json:"invariants"`
	Points     []PointResult     `json:"points"`
	Error      string            `json:"error,omitempty"`  // why it is unjudged, or why it could not run at all
	Answer     string            `json:"answer,omitempty"` // hash of the answer's source or binary
	File       string            `json:"file,omitempty"`   // where the answer was read from, if it was a file of the learner's choice
	Judge      string            `json:"judge,omitempty"`  // hash of the judge
	Notes      []string          `json:"notes,omitempty"`  // caps that were hit, points left out, and the like
	Failure    *Failure          `json:"failure,omitempty"`
	Runs       int               `json:"runs"`             // processes crashed or cut, golden runs included
	Output     string            `json:"output,omitempty"` // the end of what the answer printed in the failing run
	Golden     *wire.Trace       `json:"golden,omitempty"` // a run without faults
}

// InvariantResult is one invariant's part of a verdict.
type InvariantResult struct {
	Name string `json:"name"`
	Held bool   `json:"held"`
	Says string `json:"says"` // the invariant in one sentence
}

// PointResult is one crash run's part of a verdict.
type PointResult struct {
	At         string  `json:"at"`      // the point, as [wire.Point.String] writes it
	Message    string  `json:"message"` // the name of the message there
	Fault      string  `json:"fault"`   // kill, cut, blackhole, nack, fail, …; "" for a run without fault
	Outcome    Outcome `json:"outcome"`
	Violation  string  `json:"violation,omitempty"` // the invariant that broke
	Detail     string  `json:"detail,omitempty"`    // what was found, in words
	Then       string  `json:"then,omitempty"`      // depth 2: the second point and fault
	DurationMS int64   `json:"duration_ms"`
	Pruned     bool    `json:"pruned,omitempty"` // the state after the crash was one already recovered from
}

// Failure is the first schedule that broke an invariant, told so that it teaches.
type Failure struct {
	Invariant string      `json:"invariant"`
	At        string      `json:"at"`
	Message   string      `json:"message"`
	Fault     string      `json:"fault"`
	Schedule  string      `json:"schedule"` // all its faults, as [ParseSchedule] reads them
	Detail    string      `json:"detail"`
	Story     []string    `json:"story"` // the schedule in words, a step a line
	Tables    []Table     `json:"tables"`
	Expected  string      `json:"expected"` // what a right program would have had
	Hints     []string    `json:"hints"`    // the first is shown; the others on request
	Replay    string      `json:"replay"`   // the command that replays this schedule, if there is one
	Trace     *wire.Trace `json:"trace,omitempty"`
	Scenes    []Scene     `json:"scenes,omitempty"` // the tables and queues, message by message
}

// Scene is what the tables and queues held once a message had passed, until the
// next Scene.
type Scene struct {
	After  int     `json:"after"` // the message's number in the trace; 0 is the start
	Tables []Table `json:"tables"`
}

// Table is the content of a table or a queue at one moment of the failing run.
type Table struct {
	Name    string     `json:"name"` // "outbox" or "queue events"
	When    string     `json:"when"` // "at the crash" or "after recovery"
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
	Marks   []int      `json:"marks,omitempty"` // rows that show the violation
}
