package view

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/wire"
)

// The words of a verdict's JSON form.
const (
	verdictPass = "pass"
	verdictFail = "fail"
)

// report is a verdict made ready to be shown: cleaned, trimmed and put into
// words. [Text] and [HTML] draw the same report.
type report struct {
	words *words

	Exercise string
	State    string   // pass, fail or unjudged
	Headline []string // what the first line says after the state
	Facts    []string

	Error     []string
	ErrorMore int

	Lead      []span   // the failing schedule in one sentence
	Broken    []string // invariants
	BrokenSay string   // the first of them in one sentence
	Detail    string
	Story     []string
	Tables    []table
	TableMore int
	Expected  string
	Hints     []string
	Replay    string

	Invariants []crash.InvariantResult
	Matrix     matrix
	Diagram    *diagram
	Notes      []string
	NotesMore  int
	Output     []string
	OutputMore int
}

// table is a [crash.Table] of which the marked rows and those around them are
// kept.
type table struct {
	Name, When  string
	Columns     []string
	Rows        []tableRow
	MoreColumns int
}

type tableRow struct {
	Cells   []string
	Marked  bool
	Skipped int // this row stands for so many
}

func newReport(v crash.Verdict, lim limits) *report {
	w := english()
	r := &report{words: w, Exercise: line(v.Exercise, lim.name), State: v.Verdict}
	if r.Exercise == "" {
		r.Exercise = w.NoName
	}
	if r.State != verdictPass && r.State != verdictFail {
		r.State = crash.Unjudged
	}

	r.Matrix = newMatrix(v, lim)
	r.Error, r.ErrorMore = block(v.Error, lim.errorLines, lim.lineWidth, false)
	if len(r.Error) == 1 {
		r.Error[0] = sentence(r.Error[0])
	}
	notRun := r.State == verdictFail && v.Error != "" && len(v.Points) == 0
	for _, i := range v.Invariants {
		if notRun {
			break // none was tried
		}
		if len(r.Invariants) < lim.invariants {
			r.Invariants = append(r.Invariants, crash.InvariantResult{
				Name: line(i.Name, lim.name), Held: i.Held, Says: line(i.Says, lim.sentence),
			})
		}
	}
	if notRun {
		r.Headline = []string{w.NotRun}
	} else {
		r.setBroken(v, lim)
		r.setHeadline(v)
	}
	r.setFacts(v)
	if v.Failure != nil && r.State == verdictFail {
		r.setFailure(v, lim)
	}
	if r.Diagram == nil && v.Golden != nil {
		r.Diagram = newDiagram(v.Golden, TraceOptions{Title: w.DiagramGolden, Steps: lim.steps}, lim)
	}
	r.Notes, r.NotesMore = lines(v.Notes, lim.notes, lim.sentence)
	r.Output, r.OutputMore = block(v.Output, lim.outputLines, lim.lineWidth, true)
	return r
}

// lines cleans each of texts, leaves out the empty ones, and returns how many
// had no room.
func lines(texts []string, most, chars int) (out []string, more int) {
	for i, t := range texts {
		if len(out) == most {
			return out, len(texts) - i
		}
		if t = line(t, chars); t != "" {
			out = append(out, t)
		}
	}
	return out, 0
}

// setBroken collects the invariants that broke, that of the failure first.
func (r *report) setBroken(v crash.Verdict, lim limits) {
	seen := map[string]bool{}
	add := func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		name = line(name, lim.name)
		if name != "" && len(r.Broken) < lim.details && !slices.Contains(r.Broken, name) {
			r.Broken = append(r.Broken, name)
		}
	}
	if v.Failure != nil {
		add(v.Failure.Invariant)
	}
	for _, i := range v.Invariants {
		if !i.Held {
			add(i.Name)
		}
	}
	for _, p := range v.Points {
		if p.Outcome == crash.Violated {
			add(p.Violation)
		}
	}
	if len(r.Broken) == 0 {
		return
	}
	for _, i := range r.Invariants {
		if i.Name == r.Broken[0] {
			r.BrokenSay = i.Says
		}
	}
}

func (r *report) setHeadline(v crash.Verdict) {
	w, t := r.words, r.Matrix.tally
	add := func(s string) { r.Headline = append(r.Headline, s) }
	if r.State == crash.Unjudged {
		add(w.UnjudgedMeans)
		return
	}
	if t.Points > 0 {
		if t.Survived == t.Points {
			add(w.SurvivedAll.of(t.Points))
		} else {
			add(w.SurvivedSome.of(t.Survived, "total", strconv.Itoa(t.Points)))
		}
	}
	if r.State == verdictPass {
		return
	}
	for _, run := range r.Matrix.Whole {
		if run.cell.Kind >= cellHung {
			if run.Name == "" {
				add(w.FailsWithoutFault)
			} else {
				add(fill(w.FailsInRun, "run", run.Name))
			}
			break
		}
	}
	if len(r.Broken) > 0 {
		add(fill(w.Broke, "names", w.list(r.Broken)))
	} else if t.Hung > 0 {
		add(w.HungAt.of(t.Hung))
	}
}

func (r *report) setFacts(v crash.Verdict) {
	w := r.words
	if v.Runs > 0 {
		s := w.Runs.of(v.Runs)
		if v.DurationMS > 0 {
			s += " " + fill(w.Took, "time", r.seconds(v.DurationMS))
		}
		r.Facts = append(r.Facts, s)
	}
	if mode := line(v.Mode, 20); mode != "" {
		r.Facts = append(r.Facts, mode)
	}
	if v.Runs > 0 || v.Seed != 0 {
		r.Facts = append(r.Facts, fill(w.Seed, "seed", strconv.FormatUint(v.Seed, 10)))
	}
	if n := r.Matrix.tally.Unreached; n > 0 {
		r.Facts = append(r.Facts, w.Unreached.of(n))
	}
}

func (r *report) seconds(ms int64) string {
	s := (time.Duration(ms) * time.Millisecond).Seconds()
	return fill(r.words.Seconds, "n", fmt.Sprintf("%.1f", s))
}

func (r *report) setFailure(v crash.Verdict, lim limits) {
	f := v.Failure
	r.Detail = sentence(line(f.Detail, lim.sentence))
	r.Story, _ = lines(f.Story, lim.story, lim.sentence)
	r.Expected = line(f.Expected, lim.sentence)
	r.Hints, _ = lines(f.Hints, lim.hints, lim.sentence)
	r.Replay = line(f.Replay, lim.sentence)
	for i, t := range pairUp(f.Tables) {
		if i == lim.tables {
			r.TableMore = len(f.Tables) - i
			break
		}
		r.Tables = append(r.Tables, newTable(t, lim))
	}
	if f.Trace != nil {
		r.Diagram = newDiagram(f.Trace, TraceOptions{
			Title: r.words.Diagram, Point: f.At, Fault: f.Fault, Broken: r.words.list(r.Broken), Steps: lim.steps,
		}, lim)
	}
	r.Lead = r.lead(f, lim)
	r.Story = untold(r.Story, f, plain(r.Lead), r.Detail)
}

// pairUp puts what one table held at different moments side by side.
func pairUp(tables []crash.Table) []crash.Table {
	first := map[string]int{}
	for i, t := range tables {
		if _, ok := first[t.Name]; !ok {
			first[t.Name] = i
		}
	}
	out := slices.Clone(tables)
	slices.SortStableFunc(out, func(a, b crash.Table) int { return cmp.Compare(first[a.Name], first[b.Name]) })
	return out
}

// sentence begins s with a capital and ends it with a stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	first, n := utf8.DecodeRuneInString(s)
	s = string(unicode.ToUpper(first)) + s[n:]
	if last, _ := utf8.DecodeLastRuneInString(s); unicode.IsLetter(last) || unicode.IsDigit(last) {
		s += "."
	}
	return s
}

// untold leaves out of a story what stands above it already: where the fault
// struck, and what was found.
func untold(story []string, f *crash.Failure, told ...string) []string {
	_, err := wire.ParsePoint(f.At)
	bare := func(s string) string { return strings.TrimRight(strings.ToLower(s), ".") }
	return slices.DeleteFunc(story, func(s string) bool {
		return err == nil && strings.HasPrefix(s, "At point "+f.At+",") ||
			slices.ContainsFunc(told, func(t string) bool { return bare(t) == bare(s) })
	})
}

// lead says where the fault struck: "At point p1.amqp1>3, after COMMIT and
// before basic.publish order.placed, the process was killed."
func (r *report) lead(f *crash.Failure, lim limits) []span {
	w := r.words
	point, err := wire.ParsePoint(f.At)
	if err != nil {
		if f.Fault == "" {
			return fillSpans(w.InRunWithoutFault)
		}
		return fillSpans(w.InRun, "says", line(f.Message, lim.sentence))
	}
	what := w.FaultDid[f.Fault]
	if what == "" {
		what = fill(w.FaultDidOther, "fault", line(f.Fault, lim.word))
	}
	after, message := around(f, lim)
	back := point.Dir == wire.ToClient
	text := w.AtAfterBefore
	switch {
	case after != "" && back:
		text = w.AtAfterArrive
	case back:
		text = w.AtArrive
	case after == "":
		text = w.AtBefore
	}
	return fillSpans(text, "point", line(f.At, lim.name), "after", after, "message", message, "what", what)
}

// around names the message at the point of a failure and the last step that the
// process took before it: the one a person would say the fault came after. Steps
// that last beat those that do not.
func around(f *crash.Failure, lim limits) (after, message string) {
	message = line(f.Message, lim.name)
	if f.Trace == nil {
		return "", message
	}
	all := f.Trace.Messages
	i := slices.IndexFunc(all, func(m wire.Message) bool { return m.Step && m.Point.String() == f.At })
	if i < 0 {
		return "", message
	}
	message += tag(all[i])
	for j := i - 1; j >= 0 && j >= i-8; j-- {
		m := all[j]
		if !m.Step || m.Process != all[i].Process || m.Dir != wire.ToServer {
			continue
		}
		name := label(m, lim) + tag(m)
		if m.Effect != wire.NoEffect {
			return name, message
		}
		if after == "" {
			after = name
		}
	}
	return after, message
}

func newTable(t crash.Table, lim limits) table {
	out := table{Name: line(t.Name, lim.name), When: line(t.When, lim.name)}
	for i, c := range t.Columns {
		if i == lim.columns {
			out.MoreColumns = len(t.Columns) - i
			break
		}
		out.Columns = append(out.Columns, line(c, lim.name))
	}

	marked := map[int]bool{}
	for _, i := range t.Marks {
		marked[i] = true
	}
	for i, keep := range keepRows(len(t.Rows), marked, lim.rows) {
		if !keep {
			if n := len(out.Rows); n > 0 && out.Rows[n-1].Skipped > 0 {
				out.Rows[n-1].Skipped++
			} else {
				out.Rows = append(out.Rows, tableRow{Skipped: 1})
			}
			continue
		}
		row := tableRow{Marked: marked[i]}
		for c := range out.Columns {
			text := ""
			if c < len(t.Rows[i]) {
				text = line(t.Rows[i][c], lim.cell)
			}
			row.Cells = append(row.Cells, text)
		}
		out.Rows = append(out.Rows, row)
	}
	return out
}

// keepRows chooses most of n rows: the marked ones first, then their
// neighbours, then from the top.
func keepRows(n int, marked map[int]bool, most int) []bool {
	keep := make([]bool, n)
	left := most
	for _, wanted := range []func(int) bool{
		func(i int) bool { return marked[i] },
		func(i int) bool { return marked[i-1] || marked[i+1] },
		func(i int) bool { return true },
	} {
		for i := range keep {
			if left > 0 && !keep[i] && wanted(i) {
				keep[i] = true
				left--
			}
		}
	}
	return keep
}
