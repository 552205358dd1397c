package view

import (
	"strconv"
	"strings"
)

// words holds every word that a report shows, so that a translation is one more
// function beside english. Names in braces are filled in by [fill]; a
// translation may move them about.
type words struct {
	Lang string // as in the lang attribute of HTML

	// The headline.
	Pass, Fail, Unjudged                string
	SurvivedAll, SurvivedSome, Survived plural // {n} of {total}
	NotRun                              string
	Broke                               string // {names}
	HungAt                              plural
	FailsWithoutFault, FailsInRun       string // {run}
	UnjudgedMeans                       string
	And                                 string
	VerdictOf                           string // {exercise}, {state}
	NoName                              string
	NoScript                            string // in a page that needs its script

	// Facts under the headline.
	Runs      plural
	Took      string // {time}
	Seconds   string // {n}
	Seed      string // {seed}
	Unreached plural
	Held      string // {names}

	// The failing schedule in one sentence.
	AtAfterBefore, AtBefore   string // {point} {after} {message} {what}
	AtAfterArrive, AtArrive   string
	InRunWithoutFault, InRun  string // {says}
	FaultDid                  map[string]string
	FaultDidOther             string // {fault}
	WhatHappened, Expected    string
	Hint, AnotherHint, Replay string
	MoreHints                 plural

	// Tables.
	MoreRows, MoreColumns, MoreTables plural
	NoRows                            string
	RowBreaks                         string
	TableTitle                        string // {name} {when}

	// The crash matrix.
	Matrix                string
	Point                 string
	PointCode             string
	PointsFrom            string // {from} {to}
	Process               string // {n}
	WholeRuns             string
	WithoutFault          string
	MorePoints            plural
	MorePointsHeld        plural
	MoreFaults            plural
	Legend                [cellKinds]string
	CellTitle             string // {fault} {point} {message} {outcome}
	CellTitleRun          string // {run} {outcome}
	Then                  string // {then}
	Recovery              string // {outcome} {n}
	NothingSwept          string
	InvariantsTitle       string
	InvariantHeld         string
	InvariantBroke        string
	NotesTitle, MoreNotes string // MoreNotes: {n}
	OutputTitle           string
	Trimmed               string // {n}
	MoreLines             plural

	// The sequence diagram.
	Diagram, DiagramGolden      string
	GhostPassed, GhostGolden    string
	DiagramDesc                 string
	DiagramAsList               string
	PostgreSQL, RabbitMQ        string
	Restarted                   string // {process}
	MoreProcesses, MoreServices string
	Gap, Dropped                plural
	Repeat                      plural // {n} {times}
	FaultHere                   map[string]string
	FaultHereOther              string // {fault}
	AtPoint                     string // {what} {point}
	BrokenHere                  string // {names}
	NoMessages                  string
	LegendUncommitted           string
	LegendCommitted             string
	LegendDropped               string
	LegendStopped               string
	LegendAnswered              string
	ListMessage, ListNotArrived string // {from} {to} {message}
	ListAnswered                string // {item}
	ListUncommitted             string // {item}
	ListRolledBack              string // {item}

	// The list of a recording.
	Twin                string // {name} {n}
	Starts, StartsAgain string // {name}
	StartsFor           string // {name} {before}
	Ends                string // {name} {end}
	BrokeHere           string // {name}

	// The page.
	PageTitle string // {exercise} {state}
}

// plural is one text for one thing and one for any other number of them.
type plural struct{ One, Many string }

func (p plural) of(n int, more ...string) string {
	text := p.Many
	if n == 1 {
		text = p.One
	}
	return fill(text, append(more, "n", strconv.Itoa(n))...)
}

// fill puts values in place of the names in braces. Values come in pairs with
// their names and are not searched for braces themselves.
func fill(text string, pairs ...string) string {
	return plain(fillSpans(text, pairs...))
}

// span is a piece of a sentence. Code marks what came from the wire.
type span struct {
	Text string
	Code bool
}

func fillSpans(text string, pairs ...string) []span {
	var out []span
	for text != "" {
		before, rest, ok := strings.Cut(text, "{")
		if before != "" {
			out = append(out, span{Text: before})
		}
		if !ok {
			break
		}
		name, after, _ := strings.Cut(rest, "}")
		code := strings.HasPrefix(name, "`")
		name = strings.Trim(name, "`")
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i] == name {
				out = append(out, span{pairs[i+1], code})
			}
		}
		text = after
	}
	return out
}

func plain(spans []span) string {
	var b strings.Builder
	for _, s := range spans {
		b.WriteString(s.Text)
	}
	return b.String()
}

// list joins names as a sentence does: "a, b and c".
func (w *words) list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " " + w.And + " " + names[last]
}

func english() *words {
	return &words{
		Lang: "en",

		Pass:              "pass",
		Fail:              "fail",
		Unjudged:          "unjudged",
		SurvivedAll:       plural{"survived the one point", "survived all {n} points"},
		SurvivedSome:      plural{"survived {n} of {total} points", "survived {n} of {total} points"},
		Survived:          plural{"survived {n} point", "survived {n} points"},
		NotRun:            "there is nothing to crash yet",
		Broke:             "{names} broke",
		HungAt:            plural{"it hung at {n} point", "it hung at {n} points"},
		FailsWithoutFault: "it fails even without a fault",
		FailsInRun:        "it fails in the run “{run}”",
		UnjudgedMeans:     "the judge could not finish; this does not count against you",
		And:               "and",
		VerdictOf:         "Verdict on {exercise}: {state}",
		NoName:            "(no name)",
		NoScript:          "This view needs JavaScript.",

		Runs:      plural{"{n} run", "{n} runs"},
		Took:      "in {time}",
		Seconds:   "{n} s",
		Seed:      "seed {seed}",
		Unreached: plural{"{n} point was not reached", "{n} points were not reached"},
		Held:      "{names} held",

		AtAfterBefore:     "At point {`point`}, after {`after`} and before {`message`}, {what}.",
		AtBefore:          "At point {`point`}, before {`message`}, {what}.",
		AtAfterArrive:     "At point {`point`}, after {`after`} and before {`message`} came back, {what}.",
		AtArrive:          "At point {`point`}, before {`message`} came back, {what}.",
		InRunWithoutFault: "This run had no fault at all.",
		InRun:             "In this run {says}.",
		FaultDid: map[string]string{
			"kill":      "the process was killed",
			"freeze":    "the process was killed",
			"cut":       "the connection was cut",
			"blackhole": "the connection went silent: what was sent from then on vanished",
			"nack":      "the broker refused the message",
			"reject":    "the broker refused the message at once, ahead of the confirms of those before it",
			"fail":      "the server answered with an error",
			"shutdown":  "the server said that it goes away, and closed the connection",
			"duplicate": "the message was published a second time",
			"delay":     "the message was held back",
			"expire":    "the message was held back, and the process's idle PostgreSQL sessions ended",
			"hold":      "the message was held back",
		},
		FaultDidOther: "the fault “{fault}” struck",
		WhatHappened:  "What happened",
		Expected:      "A right program",
		Hint:          "Hint",
		AnotherHint:   "Another hint",
		MoreHints:     plural{"({n} more hint in the notebook)", "({n} more hints in the notebook)"},
		Replay:        "Replay it step by step",

		MoreRows:    plural{"… {n} more row", "… {n} more rows"},
		MoreColumns: plural{"… {n} more column", "… {n} more columns"},
		MoreTables:  plural{"… {n} more table", "… {n} more tables"},
		NoRows:      "no rows",
		RowBreaks:   "breaks the invariant",
		TableTitle:  "{name}, {when}",

		Matrix:         "Every point and fault",
		Point:          "before …",
		PointCode:      "p1.pg1>4 is a point: process 1, its first connection to PostgreSQL, before the fourth step that it sends (<: that comes back).",
		PointsFrom:     "Points {from} to {to}",
		Process:        "process {n}",
		WholeRuns:      "Whole runs",
		WithoutFault:   "no fault",
		MorePoints:     plural{"… {n} more point", "… {n} more points"},
		MorePointsHeld: plural{"… {n} more point, held", "… {n} more points, held"},
		MoreFaults:     plural{"… {n} more fault", "… {n} more faults"},
		Legend: [cellKinds]string{
			cellNone:      "not run",
			cellHeld:      "held",
			cellPruned:    "held: same state as one tried before",
			cellUnreached: "not reached",
			cellHung:      "hung",
			cellViolated:  "broke",
		},
		CellTitle:       "{fault} at {point}, before {message}: {outcome}",
		CellTitleRun:    "{run}: {outcome}",
		Then:            "then {then}",
		Recovery:        "{outcome} (worst of {n} runs)",
		NothingSwept:    "No point was tried.",
		InvariantsTitle: "Invariants",
		InvariantHeld:   "held",
		InvariantBroke:  "broke",
		NotesTitle:      "Notes",
		MoreNotes:       "… {n} more",
		OutputTitle:     "The end of what your program printed",
		Trimmed:         "… {n} characters left out …",
		MoreLines:       plural{"… {n} line left out …", "… {n} lines left out …"},

		Diagram:       "The failing run, message by message",
		DiagramGolden: "A run without faults, message by message",
		GhostPassed:   "your last passing run",
		GhostGolden:   "the run without a fault",
		DiagramDesc:   "A sequence diagram, time going down. The same messages are in the list “{list}”.",
		DiagramAsList: "The same as a list",
		PostgreSQL:    "PostgreSQL",
		RabbitMQ:      "RabbitMQ",
		Restarted:     "{process}, a restart",
		MoreProcesses: "more processes",
		MoreServices:  "more services",
		Gap:           plural{"… {n} more message", "… {n} more messages"},
		Dropped:       plural{"… {n} message after the trace was full", "… {n} messages after the trace was full"},
		Repeat:        plural{"… the same message {times} times more", "… the same {n} messages {times} times more"},
		FaultHere: map[string]string{
			"kill":      "killed",
			"freeze":    "killed",
			"cut":       "connection cut",
			"blackhole": "silent from here on",
			"nack":      "refused by the broker",
			"reject":    "refused by the broker, at once",
			"fail":      "server error",
			"shutdown":  "server goes away",
			"duplicate": "published twice",
			"delay":     "held back",
			"expire":    "held back; idle sessions end",
			"hold":      "held back",
		},
		FaultHereOther:    "fault: {fault}",
		AtPoint:           "{what} at {point}",
		BrokenHere:        "at the end: {names} broke",
		NoMessages:        "No messages.",
		LegendUncommitted: "not committed yet",
		LegendCommitted:   "committed",
		LegendDropped:     "rolled back",
		LegendStopped:     "never arrived",
		LegendAnswered:    "answered",
		ListMessage:       "{from} to {to}: {message}",
		ListNotArrived:    "{item} (never arrived)",
		ListAnswered:      "{item} (answered)",
		ListUncommitted:   "{item} (not committed yet)",
		ListRolledBack:    "{item} (rolled back later)",

		Twin:        "{name} ({n})",
		Starts:      "{name} starts",
		StartsAgain: "{name} starts again",
		StartsFor:   "{name} starts in place of {before}",
		Ends:        "{name} {end}",
		BrokeHere:   "{name} broke here",

		PageTitle: "{exercise}: {state}",
	}
}
