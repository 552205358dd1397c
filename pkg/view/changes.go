package view

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Mark says what happened to a row of a table or queue since it was last seen.
type Mark int

// The marks.
const (
	Same Mark = iota
	New
	Changed
	Gone
)

// Diff is a table or queue with what has happened to its rows.
type Diff struct {
	Thing        // its Rows are those of Marked, without the gone ones
	Marked       []MarkedRow
	News         int
	ChangedCount int
	GoneCount    int
}

// MarkedRow is a row of a [Diff].
type MarkedRow struct {
	Cells []string
	Mark  Mark
}

// Touched says whether anything has happened.
func (d Diff) Touched() bool { return d.News+d.ChangedCount+d.GoneCount > 0 }

// SceneAt returns the place of the scene that shows how things were just before
// the message numbered next passed; -1 when none was recorded by then. Next is 0
// for how things were at the end.
func (r Recording) SceneAt(next int) int {
	if next == 0 {
		return len(r.Scenes) - 1
	}
	n, _ := slices.BinarySearchFunc(r.Scenes, next, func(s Scene, next int) int { return cmp.Compare(s.After, next) })
	return n - 1
}

// Compare marks the rows of the things of now by those of before, which may be
// nil: then nothing is marked.
func Compare(before, now *Scene) []Diff {
	var out []Diff
	for _, t := range now.Things {
		d := Diff{Thing: t}
		switch old := find(before, t); {
		case before == nil || before == now:
			for _, r := range t.Rows {
				d.Marked = append(d.Marked, MarkedRow{Cells: r})
			}
		default:
			d.mark(old)
		}
		out = append(out, d)
	}
	return out
}

// find finds a thing in a scene; what was not there was empty.
func find(s *Scene, t Thing) Thing {
	if s != nil {
		for _, o := range s.Things {
			if o.Kind == t.Kind && o.Name == t.Name {
				return o
			}
		}
	}
	return Thing{Kind: t.Kind, Name: t.Name, Columns: t.Columns}
}

// mark compares with what was there before, and puts rows that are gone where
// they were.
func (d *Diff) mark(old Thing) {
	key := keyColumn(old, d.Thing)
	was, now := keys(old.Rows, key), keys(d.Rows, key)
	place := make(map[string]int, len(was))
	for i, k := range was {
		place[k] = i
	}
	stays := make(map[string]bool, len(now))
	// Of a list that was cut, the end is not known: what comes into sight there
	// is not new, and what goes out of sight is not gone.
	common, commonOld := -1, -1
	for i, k := range now {
		stays[k] = true
		if at, ok := place[k]; ok {
			common, commonOld = i, max(commonOld, at)
		}
	}
	lost := map[string][]MarkedRow{} // by the key before them
	last := ""
	for i, k := range was {
		switch {
		case stays[k]:
			last = k
		case d.More > 0 && i > commonOld && commonOld >= 0:
		default:
			lost[last] = append(lost[last], MarkedRow{Cells: old.Rows[i], Mark: Gone})
			d.GoneCount++
		}
	}
	d.Marked = append(d.Marked, lost[""]...) // no key is empty
	for i, k := range now {
		row := MarkedRow{Cells: d.Rows[i]}
		switch at, ok := place[k]; {
		case ok && !slices.Equal(old.Rows[at], row.Cells):
			row.Mark = Changed
			d.ChangedCount++
		case !ok && (old.More == 0 || i <= common):
			row.Mark = New
			d.News++
		}
		d.Marked = append(d.Marked, row)
		d.Marked = append(d.Marked, lost[k]...)
	}
}

var (
	isID   = regexp.MustCompile(`(?i)(^|[ _])id$`)
	onlyID = regexp.MustCompile(`(?i)^id$`)
)

// keyColumn finds the column that names a row in both; -1 when there is none.
func keyColumn(a, b Thing) int {
	if !slices.Equal(a.Columns, b.Columns) {
		return -1
	}
	var order []int
	if b.Kind != "queue" && len(b.Columns) > 0 {
		order = append(order, 0)
	}
	for i, c := range b.Columns {
		if isID.MatchString(c) {
			order = append(order, i)
		}
	}
	if i := slices.IndexFunc(b.Columns, onlyID.MatchString); i >= 0 {
		order = append([]int{i}, order...)
	}
	for _, c := range order {
		if unique(a.Rows, c) && unique(b.Rows, c) {
			return c
		}
	}
	return -1
}

func unique(rows [][]string, column int) bool {
	seen := map[string]bool{}
	for _, r := range rows {
		if column >= len(r) || r[column] == "" || seen[r[column]] {
			return false
		}
		seen[r[column]] = true
	}
	return true
}

// keys names each row. Rows that are alike are told apart by their order.
func keys(rows [][]string, column int) []string {
	seen := map[string]int{}
	out := make([]string, len(rows))
	for i, r := range rows {
		k := strings.Join(r, "\x00")
		if column >= 0 {
			k = r[column]
		}
		out[i] = strconv.Itoa(seen[k]) + " " + k
		seen[k]++
	}
	return out
}
