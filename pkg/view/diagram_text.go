package view

import (
	"fmt"
	"io"
	"strings"

	"github.com/rivo/uniseg"

	"crashcourse/pkg/wire"
)

// TraceText writes t as a sequence diagram of characters: a lane for each server
// and for each process that ran at the same time, time going down.
//
// It returns the error of w, with what it was doing; a nil trace is an empty one.
func TraceText(w io.Writer, t *wire.Trace, o TraceOptions) error {
	if t == nil {
		t = &wire.Trace{}
	}
	p := newPrinter(w, o.Width, o.Colour)
	p.diagram(newDiagram(t, o, roomy()), "")
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("view: write the trace: %w", err)
	}
	return nil
}

// canvas is one line of a text diagram, a cell for each column of the terminal.
type canvas []string

func newCanvas(n int) canvas {
	c := make(canvas, n)
	for i := range c {
		c[i] = " "
	}
	return c
}

// put writes s from column x on. A wide character takes two cells.
func (c canvas) put(x int, s string) {
	for g := uniseg.NewGraphemes(s); g.Next(); {
		n := g.Width()
		if n == 0 {
			continue
		}
		if x < 0 || x+n > len(c) {
			return
		}
		c[x] = g.Str()
		for i := 1; i < n; i++ {
			c[x+i] = ""
		}
		x += n
	}
}

func (c canvas) fill(from, to int, s string) {
	for i := max(from, 0); i < to && i < len(c); i++ {
		c[i] = s
	}
}

func (c canvas) centre(x int, s string) {
	s = fit(s, len(c))
	at := min(max(x-width(s)/2, 0), len(c)-width(s))
	c.put(at, s)
}

func (c canvas) String() string { return strings.TrimRight(strings.Join(c, ""), " ") }

func (p *printer) diagram(d *diagram, indent string) {
	if len(d.Rows) == 0 || len(d.Columns) == 0 {
		p.line(indent, d.words.NoMessages)
		return
	}
	n := p.width - len(indent)
	at := make([]int, len(d.Columns))
	first, last := 2, n-3
	for i := range at {
		at[i] = first
		if len(at) > 1 {
			at[i] += (last - first) * i / (len(at) - 1)
		}
	}

	head := newCanvas(n)
	for i, c := range d.Columns {
		head.centre(at[i], c.Head)
	}
	p.line(indent, p.in(head.String(), bold))
	for i, r := range d.Rows {
		c := newCanvas(n)
		d.lanes(c, at, i)
		var st []style
		switch r.Kind {
		case rowMessage:
			d.arrow(c, at, r)
			if r.Back || r.Answered && !r.Commit && !r.Uncommitted {
				st = append(st, dim)
			}
		case rowStart:
			c.centre(at[r.From], " "+r.Label+" ")
			st = append(st, bold)
		case rowGap:
			c.centre(n/2, " "+r.Label+" ")
			st = append(st, dim)
		case rowFault, rowBroken:
			c.fill(0, n, "╌")
			c.centre(n/2, " "+cellViolated.sign()+" "+r.Label+" ")
			st = append(st, red, bold)
		}
		p.line(indent, p.in(c.String(), st...))
	}
	if legend := d.legend(); len(legend) > 0 {
		p.line(indent, p.in(strings.Join(legend, "   "), dim))
	}
}

// lanes draws what runs down through row i.
func (d *diagram) lanes(c canvas, at []int, i int) {
	for k, col := range d.Columns {
		if col.Server {
			c[at[k]] = "│"
		}
	}
	for _, v := range d.Lives {
		if i > v.From && i <= v.To {
			c[at[v.Column]] = "│"
		}
	}
	for _, s := range d.Spans {
		x := at[0]
		switch {
		case i == s.To && s.Fate == fateCommitted:
			c[x] = "◆"
		case i == s.To && s.Fate == fateRolledBack:
			c[x] = "✗"
		case i >= s.From && i <= s.To && c[x] == "│":
			c[x] = "║"
		}
	}
}

// arrow draws a message. Its label stands beside the process.
func (d *diagram) arrow(c canvas, at []int, r row) {
	body := "─"
	switch {
	case r.Uncommitted:
		body = "╌"
	case r.Commit:
		body = "━"
	}
	from, to := at[r.From], at[r.To]
	step, tip := 1, ">"
	if to < from {
		step, tip = -1, "<"
	}
	end := to - step
	near := at[d.besideProcess(r)]
	if r.Stopped {
		end = from + (at[r.From+step]-from)*4/5
		tip = "✗"
		near = end
	}
	for x := from + step; x != end; x += step {
		if c[x] == " " || r.From+step == r.To {
			c[x] = body
		} else {
			c[x] = "┼"
		}
	}
	c[end] = tip

	tail := r.Tag
	if r.Answered {
		tail += " ✓"
	}
	a, b := from, near
	if r.Back && !r.Stopped {
		a, b = near, to
	}
	lo, hi := min(a, b)+1, max(a, b)
	text := " " + fit(r.Label, hi-lo-4-width(tail)) + tail + " "
	c.put(lo+(hi-lo-width(text))/2, text)
}

// besideProcess is the column next to the message's process, on the server's
// side.
func (d *diagram) besideProcess(r row) int {
	process, server := r.From, r.To
	if r.Back {
		process, server = server, process
	}
	if server < process {
		return process - 1
	}
	return process + 1
}

// legend explains the signs that occur.
func (d *diagram) legend() []string {
	w := d.words
	var open, committed, rolledBack, stopped, answered bool
	for _, r := range d.Rows {
		open = open || r.Uncommitted
		stopped = stopped || r.Stopped
		answered = answered || r.Answered
	}
	for _, s := range d.Spans {
		open = open || s.To > s.From
		committed = committed || s.Fate == fateCommitted
		rolledBack = rolledBack || s.Fate == fateRolledBack
	}
	var out []string
	add := func(yes bool, sign, text string) {
		if yes {
			out = append(out, sign+" "+text)
		}
	}
	add(open, "║ ╌", w.LegendUncommitted)
	add(committed, "◆", w.LegendCommitted)
	add(rolledBack, "✗", w.LegendDropped)
	add(stopped, "─✗", w.LegendStopped)
	add(answered, "✓", w.LegendAnswered)
	return out
}
