package view

import (
	"cmp"
	"slices"
	"strings"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/wire"
)

// matrix is a sweep as a table: points in the order in which a run comes to
// them, by faults.
type matrix struct {
	Faults     []string
	MoreFaults int // faults that had no room
	Groups     []matrixGroup
	Whole      []wholeRun
	tally      tally
}

// matrixGroup is the points of one process.
type matrixGroup struct {
	Process int
	Rows    []matrixRow
}

// matrixRow is one point, or a gap when Skipped is not 0.
type matrixRow struct {
	At, Message string
	Cells       []cell
	Broke       bool // the failing schedule of the report is here
	Skipped     int
	SkippedHeld bool

	key   string // At before it was cleaned
	point wire.Point
	worst cellKind
	seq   int // place in a run without faults; 0 when it is not there
}

// wholeRun is a run that no single point stands for: one without a fault, or
// one from another starting state.
type wholeRun struct {
	Name string // "" for no fault
	Says string
	cell cell
}

type cell struct {
	Kind    cellKind
	Runs    int
	Details []string // what was found, where it did not hold
	Broke   bool
}

// cellKind sorts outcomes from the least to the most telling: a cell that
// stands for several runs shows the greatest.
type cellKind int

const (
	cellNone cellKind = iota
	cellUnreached
	cellPruned
	cellHeld
	cellHung
	cellViolated
	cellKinds
)

// sign is what a cell shows. The signs differ in shape, not only in colour.
func (k cellKind) sign() string {
	return [...]string{"·", "○", "≈", "✓", "∞", "✗"}[k]
}

// class names the kind in style sheets.
func (k cellKind) class() string {
	return [...]string{"none", "unreached", "pruned", "held", "hung", "broke"}[k]
}

func kindOf(p crash.PointResult) cellKind {
	switch p.Outcome {
	case crash.Held:
		if p.Pruned {
			return cellPruned
		}
		return cellHeld
	case crash.Violated:
		return cellViolated
	case crash.Hung:
		return cellHung
	case crash.Unreached:
		return cellUnreached
	}
	return cellNone
}

// tally counts the faults that struck, as the score of a verdict does.
type tally struct {
	Points    int // that were reached
	Survived  int
	Hung      int
	Unreached int
}

// faultOrder is the order of the columns; faults that are not here come after.
var faultOrder = []string{"kill", "cut", "blackhole", "nack", "reject", "fail", "shutdown", "duplicate", "delay", "expire"}

func newMatrix(v crash.Verdict, lim limits) matrix {
	var m matrix
	order, tags := map[string]int{}, map[string]string{}
	if v.Golden != nil {
		for i, msg := range v.Golden.Messages {
			if at := msg.Point.String(); msg.Step || order[at] == 0 {
				order[at], tags[at] = i+1, tag(msg)
			}
		}
	}

	rows := map[string]*matrixRow{}
	cells := map[[2]string]*cell{}
	var points []*matrixRow
	var faults []string
	whole := map[string]*cell{}
	says := map[string]string{}
	var runs []string
	for _, p := range v.Points {
		kind := kindOf(p)
		m.tally.add(p, kind)
		point, err := wire.ParsePoint(p.At)
		if err != nil || p.Fault == "" {
			c := whole[p.Fault]
			if c == nil {
				c = &cell{}
				whole[p.Fault] = c
				runs = append(runs, p.Fault)
				if p.Fault != "" {
					says[p.Fault] = line(p.Message, lim.name)
				}
			}
			c.add(p, kind, lim)
			if f := v.Failure; f != nil && f.At == p.At && f.Fault == p.Fault {
				c.Broke = true
			}
			continue
		}
		row := rows[p.At]
		if row == nil {
			row = &matrixRow{key: p.At, At: line(p.At, lim.name), Message: line(p.Message, lim.name) + tags[p.At], point: point, seq: order[p.At]}
			rows[p.At] = row
			points = append(points, row)
		}
		if !slices.Contains(faults, p.Fault) {
			faults = append(faults, p.Fault)
		}
		c := cells[[2]string{p.At, p.Fault}]
		if c == nil {
			c = &cell{}
			cells[[2]string{p.At, p.Fault}] = c
		}
		c.add(p, kind, lim)
		if f := v.Failure; f != nil && f.At == p.At && f.Fault == p.Fault {
			c.Broke, row.Broke = true, true
		}
		row.worst = max(row.worst, kind)
	}

	slices.SortStableFunc(points, compareRows)
	slices.SortStableFunc(faults, func(a, b string) int { return cmp.Compare(faultRank(a), faultRank(b)) })
	if over := len(faults) - lim.faults; over > 0 {
		m.MoreFaults, faults = over, faults[:lim.faults]
	}
	for _, f := range faults {
		m.Faults = append(m.Faults, line(f, lim.word))
	}
	for _, name := range runs {
		if len(m.Whole) < lim.wholes {
			m.Whole = append(m.Whole, wholeRun{line(name, lim.name), says[name], *whole[name]})
		}
	}

	for _, row := range selectRows(points, lim.points) {
		if row.Skipped == 0 {
			for _, f := range faults {
				if c := cells[[2]string{row.key, f}]; c != nil {
					row.Cells = append(row.Cells, *c)
				} else {
					row.Cells = append(row.Cells, cell{})
				}
			}
		}
		if n := len(m.Groups); n == 0 || m.Groups[n-1].Process != row.point.Process {
			m.Groups = append(m.Groups, matrixGroup{Process: row.point.Process})
		}
		g := &m.Groups[len(m.Groups)-1]
		g.Rows = append(g.Rows, row)
	}
	return m
}

func (t *tally) add(p crash.PointResult, kind cellKind) {
	if p.Fault == "" || kind == cellNone {
		return
	}
	switch kind {
	case cellUnreached:
		t.Unreached++
		return
	case cellHung:
		t.Hung++
	case cellHeld, cellPruned:
		t.Survived++
	}
	t.Points++
}

func (c *cell) add(p crash.PointResult, kind cellKind, lim limits) {
	c.Runs++
	c.Kind = max(c.Kind, kind)
	if p.Detail == "" && p.Violation == "" || kind == cellHeld || len(c.Details) == lim.details {
		return
	}
	detail := p.Violation
	if detail == "" {
		detail = p.Detail
	}
	if p.Then != "" {
		detail += " (" + p.Then + ")"
	}
	c.Details = append(c.Details, line(detail, lim.name))
}

// compareRows sorts by process, then by place in a run without faults. Points
// that only a recovery comes to follow, stream by stream.
func compareRows(a, b *matrixRow) int {
	late := func(r *matrixRow) int {
		if r.seq == 0 {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(a.point.Process, b.point.Process),
		cmp.Compare(late(a), late(b)),
		cmp.Compare(a.seq, b.seq),
		strings.Compare(string(b.point.Protocol), string(a.point.Protocol)), // pg, http, amqp
		cmp.Compare(a.point.Conn, b.point.Conn),
		strings.Compare(string(b.point.Dir), string(a.point.Dir)), // towards the server first
		cmp.Compare(a.point.Index, b.point.Index),
	)
}

func faultRank(f string) int {
	if i := slices.Index(faultOrder, f); i >= 0 {
		return i
	}
	return len(faultOrder)
}

// selectRows keeps at most max rows, the telling ones before the others, and
// puts gaps where it left some out.
func selectRows(points []*matrixRow, max int) []matrixRow {
	keep := make([]bool, len(points))
	left := max
	for _, wanted := range []func(*matrixRow) bool{
		func(r *matrixRow) bool { return r.Broke },
		func(r *matrixRow) bool { return r.worst == cellViolated },
		func(r *matrixRow) bool { return r.worst == cellHung },
		func(r *matrixRow) bool { return true },
	} {
		for i, r := range points {
			if left > 0 && !keep[i] && wanted(r) {
				keep[i] = true
				left--
			}
		}
	}
	var out []matrixRow
	for i, r := range points {
		if keep[i] {
			out = append(out, *r)
			continue
		}
		held := r.worst == cellHeld || r.worst == cellPruned
		n := len(out)
		if n > 0 && out[n-1].Skipped > 0 && out[n-1].point.Process == r.point.Process {
			out[n-1].Skipped++
			out[n-1].SkippedHeld = out[n-1].SkippedHeld && held
			continue
		}
		out = append(out, matrixRow{Skipped: 1, SkippedHeld: held, point: r.point})
	}
	return out
}
