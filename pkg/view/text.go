package view

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"crashcourse/pkg/crash"
)

// TextOptions says how a verdict is written as text. The zero value suits a
// terminal and a file alike.
type TextOptions struct {
	// Width is the width of a line in columns; 0 means that of the terminal, or
	// 80. The line that replays the schedule is never broken.
	Width int
	// Colour says whether text has colours.
	Colour Colour
	// Diagram adds the sequence diagram of the failing schedule.
	Diagram bool
	// Long shows a passing verdict as fully as a failing one.
	Long bool
}

const (
	textRows    = 12 // rows of a table
	textPoints  = 40 // rows of the matrix
	textOutput  = 15 // lines of what the answer printed
	leastColumn = 8  // the narrowest that a column of a table is made
)

// Text writes v for a terminal: the verdict in the first line, then for a
// failing one the schedule that broke it, what the tables held, a hint, and how
// to replay it. A passing verdict takes at most twelve lines. Signs say
// everything; colours only help.
//
// It returns the error of w, with what it was doing.
func Text(w io.Writer, v crash.Verdict, o TextOptions) error {
	lim := roomy()
	lim.rows, lim.points, lim.outputLines = textRows, textPoints, textOutput
	lim.name, lim.cell, lim.sentence = 60, 60, 800
	r := newReport(v, lim)
	p := newPrinter(w, o.Width, o.Colour)
	p.headline(r)
	if r.State == verdictPass && !o.Long {
		p.short(r)
	} else {
		p.full(r, o)
	}
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("view: write the verdict on %s: %w", r.Exercise, err)
	}
	return nil
}

// MatrixText writes only the crash matrix of v: every point, in the order in
// which a run comes to them, by every fault.
func MatrixText(w io.Writer, v crash.Verdict, o TextOptions) error {
	lim := roomy()
	lim.points, lim.name = textPoints, 60
	r := newReport(v, lim)
	p := newPrinter(w, o.Width, o.Colour)
	p.matrix(r, "")
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("view: write the matrix of %s: %w", r.Exercise, err)
	}
	return nil
}

func (p *printer) headline(r *report) {
	st := yellow
	switch r.State {
	case verdictPass:
		st = green
	case verdictFail:
		st = red
	}
	text := r.Exercise + ": " + strings.ToUpper(r.stateWord())
	if len(r.Headline) > 0 {
		text += " — " + strings.Join(r.Headline, "; ")
	}
	p.line(p.in(text, bold, st))
}

func (r *report) stateWord() string {
	switch r.State {
	case verdictPass:
		return r.words.Pass
	case verdictFail:
		return r.words.Fail
	}
	return r.words.Unjudged
}

// short is the rest of a passing verdict.
func (p *printer) short(r *report) {
	var held []string
	for _, i := range r.Invariants {
		if i.Held {
			held = append(held, i.Name)
		}
	}
	if len(held) > 0 {
		text := fill(r.words.Held, "names", r.words.list(held))
		for _, l := range firstLines(wrap(text, p.width-4), 3) {
			p.line("  ", l)
		}
	}
	p.facts(r)
	for i, n := range r.Notes {
		if i == 5 {
			p.line("  ", p.in(fill(r.words.MoreNotes, "n", strconv.Itoa(len(r.Notes)-i+r.NotesMore)), dim))
			break
		}
		p.line("  ", fit(n, p.width-2))
	}
}

func firstLines(l []string, n int) []string {
	if len(l) > n {
		l = l[:n]
		l[n-1] += " …"
	}
	return l
}

func (p *printer) facts(r *report) {
	if len(r.Facts) > 0 {
		p.line("  ", p.in(fit(strings.Join(r.Facts, " · "), p.width-2), dim))
	}
}

func (p *printer) full(r *report, o TextOptions) {
	w := r.words
	p.facts(r)
	p.errorLines(r)

	if text := plain(r.Lead); text != "" {
		p.line()
		p.para("", text, bold)
	}
	if r.Detail != "" {
		if len(r.Lead) == 0 {
			p.line()
		}
		p.para("", r.Detail)
	}
	if r.BrokenSay != "" {
		p.line()
		p.para("", r.Broken[0]+": "+r.BrokenSay)
	}
	if len(r.Story) > 0 {
		p.title(w.WhatHappened)
		for i, s := range r.Story {
			p.para(fmt.Sprintf("%3d. ", i+1), s)
		}
	}
	if o.Diagram && r.Diagram != nil && r.State == verdictFail {
		p.title(r.Diagram.Title)
		p.diagram(r.Diagram, "  ")
	}
	for _, t := range r.Tables {
		p.table(r, t)
	}
	if r.TableMore > 0 {
		p.line("  ", p.in(w.MoreTables.of(r.TableMore), dim))
	}
	p.section(w.Expected, r.Expected)
	if len(r.Hints) > 0 {
		p.section(w.Hint, r.Hints[0])
		if n := len(r.Hints) - 1; n > 0 {
			p.line("  ", p.in(w.MoreHints.of(n), dim))
		}
	}
	if r.Replay != "" {
		p.title(w.Replay)
		p.line("  ", p.in(r.Replay, bold))
	}
	if len(r.Invariants) > 0 {
		p.title(w.InvariantsTitle)
		name := 0
		for _, i := range r.Invariants {
			name = max(name, min(width(i.Name), 24))
		}
		for _, i := range r.Invariants {
			sign := p.in(cellHeld.sign(), green)
			if !i.Held {
				sign = p.in(cellViolated.sign(), red, bold)
			}
			for k, l := range wrap(i.Says, p.width-name-6) {
				if k == 0 {
					p.line("  ", sign, " ", pad(fit(i.Name, name), name), "  ", l)
				} else {
					p.line(strings.Repeat(" ", name+6), l)
				}
			}
			if i.Says == "" {
				p.line("  ", sign, " ", i.Name)
			}
		}
	}
	if len(r.Matrix.Faults) > 0 || len(r.Matrix.Whole) > 0 {
		p.title(w.Matrix)
		p.matrix(r, "  ")
	}
	if len(r.Notes) > 0 {
		p.title(w.NotesTitle)
		for _, n := range r.Notes {
			p.para("  - ", n)
		}
		if r.NotesMore > 0 {
			p.line("  ", p.in(fill(w.MoreNotes, "n", strconv.Itoa(r.NotesMore)), dim))
		}
	}
	if len(r.Output) > 0 {
		p.title(w.OutputTitle)
		if r.OutputMore > 0 {
			p.line("  ", p.in(w.MoreLines.of(r.OutputMore), dim))
		}
		for _, l := range r.Output {
			p.line("  │ ", l)
		}
	}
}

func (p *printer) errorLines(r *report) {
	if len(r.Error) == 0 {
		return
	}
	p.line()
	for _, l := range r.Error {
		p.line("  ", l)
	}
	if r.ErrorMore > 0 {
		p.line("  ", p.in(r.words.MoreLines.of(r.ErrorMore), dim))
	}
}

func (p *printer) title(text string) {
	p.line()
	p.line(p.in(text, bold))
}

func (p *printer) section(title, text string) {
	if text != "" {
		p.title(title)
		p.para("  ", text)
	}
}

// table writes a table; a sign stands before the rows that break the invariant.
func (p *printer) table(r *report, t table) {
	w := r.words
	name := t.Name
	if t.When != "" {
		name = fill(w.TableTitle, "name", t.Name, "when", t.When)
	}
	p.title(name)
	if len(t.Rows) == 0 {
		p.line("    ", p.in(w.NoRows, dim))
		return
	}
	t = narrow(t, (p.width-4)/(leastColumn+2))
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		widths[i] = width(c)
		for _, row := range t.Rows {
			if row.Skipped == 0 {
				widths[i] = max(widths[i], width(row.Cells[i]))
			}
		}
	}
	shrink(widths, p.width-4)
	cells := func(texts []string) string {
		var b strings.Builder
		for i, s := range texts {
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(pad(fit(s, widths[i]), widths[i]))
		}
		return strings.TrimRight(b.String(), " ")
	}
	if len(t.Columns) > 0 {
		p.line("    ", p.in(cells(t.Columns), dim))
	}
	for _, row := range t.Rows {
		switch {
		case row.Skipped > 0:
			p.line("    ", p.in(w.MoreRows.of(row.Skipped), dim))
		case row.Marked:
			p.line("  ", p.in(cellViolated.sign(), red, bold), " ", p.in(cells(row.Cells), bold))
		default:
			p.line("    ", cells(row.Cells))
		}
	}
	if t.MoreColumns > 0 {
		p.line("    ", p.in(w.MoreColumns.of(t.MoreColumns), dim))
	}
}

// narrow leaves out columns that would have no room.
func narrow(t table, most int) table {
	if over := len(t.Columns) - most; over > 0 {
		t.Columns = t.Columns[:most]
		t.MoreColumns += over
		rows := t.Rows
		t.Rows = nil
		for _, row := range rows {
			if row.Skipped == 0 {
				row.Cells = row.Cells[:most]
			}
			t.Rows = append(t.Rows, row)
		}
	}
	return t
}

// shrink takes from the widest columns until all fit into room.
func shrink(widths []int, room int) {
	for {
		total, widest := 0, 0
		for i, w := range widths {
			total += w + 2
			if w > widths[widest] {
				widest = i
			}
		}
		if total-2 <= room || len(widths) == 0 || widths[widest] <= leastColumn {
			return
		}
		widths[widest]--
	}
}

func (p *printer) matrix(r *report, indent string) {
	w, m := r.words, r.Matrix
	if len(m.Faults) == 0 && len(m.Whole) == 0 {
		p.line(indent, p.in(w.NothingSwept, dim))
		return
	}
	used := map[cellKind]bool{}
	var whole []string
	for _, run := range m.Whole {
		used[run.cell.Kind] = true
		name := run.Name
		if name == "" {
			name = w.WithoutFault
		}
		whole = append(whole, run.cell.Kind.sign()+" "+name)
	}
	for _, l := range wrapParts(whole, "   ", p.width-len(indent)) {
		p.line(indent, l)
	}

	at, message := 0, width(w.Point)
	for _, g := range m.Groups {
		for _, row := range g.Rows {
			at, message = max(at, width(row.At)), max(message, width(row.Message))
		}
	}
	columns := 0
	for _, f := range m.Faults {
		columns += 2 + width(f)
	}
	at = min(at, 14)
	message = max(min(message, p.width-len(indent)-at-2-columns), 12)

	for i, g := range m.Groups {
		head := ""
		if len(m.Groups) > 1 && g.Process > 0 {
			head = fill(w.Process, "n", strconv.Itoa(g.Process))
		}
		if i == 0 {
			text := pad(fit(head, at), at) + "  " + pad(fit(w.Point, message), message)
			for _, f := range m.Faults {
				text += "  " + f
			}
			p.line(indent, p.in(text, dim))
		} else {
			p.line(indent, p.in(head, dim))
		}
		for _, row := range g.Rows {
			if row.Skipped > 0 {
				text := w.MorePoints.of(row.Skipped)
				if row.SkippedHeld {
					text = w.MorePointsHeld.of(row.Skipped)
				}
				p.line(indent, p.in(text, dim))
				continue
			}
			var b strings.Builder
			for k, c := range row.Cells {
				used[c.Kind] = true
				// The sign stands under the middle of the fault's name.
				left := (width(m.Faults[k]) - 1) / 2
				b.WriteString(strings.Repeat(" ", 2+left) + p.sign(c))
				if k < len(row.Cells)-1 {
					b.WriteString(strings.Repeat(" ", width(m.Faults[k])-1-left))
				}
			}
			text := pad(fit(row.At, at), at) + "  " + pad(fit(row.Message, message), message)
			if row.Broke {
				text = p.in(text, bold)
			}
			p.line(indent, text, b.String())
		}
	}
	if m.MoreFaults > 0 {
		p.line(indent, p.in(w.MoreFaults.of(m.MoreFaults), dim))
	}
	var legend []string
	for _, k := range legendOrder {
		if used[k] {
			legend = append(legend, k.sign()+" "+w.Legend[k])
		}
	}
	for _, l := range wrapParts(legend, "   ", p.width-len(indent)) {
		p.line(indent, p.in(l, dim))
	}
}

var legendOrder = []cellKind{cellViolated, cellHung, cellHeld, cellPruned, cellUnreached, cellNone}

func wrapParts(parts []string, sep string, n int) []string {
	var out []string
	for _, s := range parts {
		if k := len(out); k > 0 && width(out[k-1])+width(sep)+width(s) <= n {
			out[k-1] += sep + s
			continue
		}
		out = append(out, s)
	}
	return out
}

func (p *printer) sign(c cell) string {
	switch c.Kind {
	case cellHeld, cellPruned:
		return p.in(c.Kind.sign(), green)
	case cellViolated:
		return p.in(c.Kind.sign(), red, bold)
	case cellHung:
		return p.in(c.Kind.sign(), yellow, bold)
	}
	return p.in(c.Kind.sign(), dim)
}
