package view

import (
	"embed"
	"fmt"
	"html/template"
	"strings"

	"crashcourse/pkg/wire"
)

//go:embed *.tmpl *.css
var files embed.FS

// pages parses the templates. They are part of the program, so that a failure
// is caught by every test.
func pages() (*template.Template, error) {
	t, err := template.New("view").ParseFS(files, "*.tmpl")
	if err != nil {
		return nil, fmt.Errorf("view: parse the templates: %w", err)
	}
	return t, nil
}

func styles(names ...string) (template.CSS, error) {
	var b strings.Builder
	for _, n := range names {
		text, err := files.ReadFile(n)
		if err != nil {
			return "", fmt.Errorf("view: read the style sheet: %w", err)
		}
		b.WriteString(squeeze(string(text)))
	}
	return template.CSS(b.String()), nil
}

// squeeze leaves out indentation and comments: a notebook stores a copy of the
// style sheet with each output.
func squeeze(css string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(css, "/*")
		for l := range strings.Lines(before) {
			b.WriteString(strings.TrimSpace(l))
		}
		if !ok {
			return b.String()
		}
		_, css, _ = strings.Cut(rest, "*/")
	}
}

// TraceSVG draws t as a sequence diagram: a lane for each server and for each
// process that ran at the same time, time going down. The SVG stands alone: it
// has its own styles, follows JupyterLab's theme where it is inline and the
// system's where it is not, and refers to nothing outside. A nil trace is an
// empty one.
func TraceSVG(t *wire.Trace, o TraceOptions) (string, error) {
	if t == nil {
		t = &wire.Trace{}
	}
	tmpl, err := pages()
	if err != nil {
		return "", err
	}
	layout := newDiagram(t, o, roomy())
	d := layout.draw()
	d.standAlone(layout)
	if d.CSS, err = styles("theme.css", "diagram.css"); err != nil {
		return "", err
	}
	var b strings.Builder
	if err := tmpl.ExecuteTemplate(&b, "diagram", d); err != nil {
		return "", fmt.Errorf("view: draw the trace: %w", err)
	}
	return b.String(), nil
}

// TraceHTML draws t like [TraceSVG], as a fragment for the text/html output of a
// notebook cell: it takes the width there is, and has a legend and the same in
// words. See [HTML] for what a fragment promises.
func TraceHTML(t *wire.Trace, o TraceOptions) (string, error) {
	if t == nil {
		t = &wire.Trace{}
	}
	tmpl, err := pages()
	if err != nil {
		return "", err
	}
	h := &htmlReport{W: english(), Sub: 4}
	h.setDiagram(newDiagram(t, o, roomy()))
	if h.CSS, err = styles("theme.css", "diagram.css", "report.css"); err != nil {
		return "", err
	}
	var b strings.Builder
	if err := tmpl.ExecuteTemplate(&b, "trace", h); err != nil {
		return "", fmt.Errorf("view: draw the trace: %w", err)
	}
	return b.String(), nil
}

// drawing is a diagram in coordinates: across in per cent, so that lanes move
// with the room there is while letters keep their size; down in pixels.
type drawing struct {
	Title, Desc   string
	Alone         bool
	CSS           template.CSS
	Width, Height int // of one that stands alone
	Least, Most   int // widths
	Wide          bool
	Heads         []drawnHead
	Lanes         []drawnLane
	Bars          []drawnBar
	Ends          []drawnEnd
	Rows          []drawnRow
	Legend        []legendItem
}

type drawnHead struct {
	X, Anchor, Text string
	Server          bool
}

type drawnLane struct {
	X, Class string
	Y1, Y2   int
}

type drawnBar struct {
	X, Class     string
	Dx, Y, Tall  int
	TitleOfState string
}

type drawnEnd struct {
	X, Class string
	Dx, Y    int
}

type drawnRow struct {
	Class            string
	Seq              int
	Title            string
	Text             string
	X, X1, X2        string // of the label; of the line
	LabelY, Y, Reply int    // Reply is 0 without one
	Left, Stopped    bool   // the head points to the left; it is a cross
	Top, Tall        int    // of a band
	Tip              int    // how far the head stays from the end of the line
	Box, BoxX        int    // width and left edge of a start's box
}

type legendItem struct {
	Class, Text string
	X, Y        int // in a picture that stands alone
}

const (
	svgWidth   = 720
	headTall   = 34
	messageRow = 27
	replyRow   = 30
	startRow   = 40
	bandRow    = 36
	gapRow     = 26
	barStep    = 8 // between transactions side by side

	// Characters on an arrow, with three lanes or fewer and with more.
	longLabel, shortLabel = 30, 20
	bandLabel             = 52

	mostDesc = 4000 // characters of a description
)

func (d *diagram) draw() drawing {
	n := len(d.Columns)
	out := drawing{Title: d.Title, Desc: fill(d.words.DiagramDesc, "list", d.words.DiagramAsList), Width: svgWidth}
	margin := 11.0
	switch {
	case n <= 1:
		margin = 50
	case n == 2:
		margin = 25
	case n > 4:
		margin = 7
	}
	out.Least, out.Most = 340, 700
	chars := longLabel
	if n > 3 {
		chars = shortLabel
		out.Least, out.Most = 60+(n-1)*150, 160+(n-1)*200
		out.Wide = true
		out.Width = out.Least
	}
	at := func(i int) float64 {
		if n <= 1 {
			return margin
		}
		return margin + (100-2*margin)*float64(i)/float64(n-1)
	}
	x := func(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + "%" }

	// Where the rows are.
	tops, lines := make([]int, len(d.Rows)), make([]int, len(d.Rows))
	y := headTall
	for i, r := range d.Rows {
		tops[i] = y
		switch r.Kind {
		case rowMessage:
			lines[i] = y + 18
			y += messageRow
			if r.Answered {
				y += replyRow - messageRow
			}
		case rowStart:
			lines[i] = y + startRow/2
			y += startRow
		case rowGap:
			lines[i] = y + gapRow/2
			y += gapRow
		default:
			lines[i] = y + bandRow/2
			y += bandRow
		}
	}
	out.Height = y + 8
	end := y + 4
	if k := len(d.Rows); k > 0 && d.Rows[k-1].Kind == rowBroken {
		end = lines[k-1]
	}

	if len(d.Rows) == 0 {
		out.Rows = append(out.Rows, drawnRow{Class: "gap", Text: d.words.NoMessages, X: "50%", LabelY: headTall / 2})
	}
	for i, c := range d.Columns {
		out.Heads = append(out.Heads, drawnHead{X: x(at(i)), Text: c.Head, Server: c.Server})
		if c.Server {
			out.Lanes = append(out.Lanes, drawnLane{X: x(at(i)), Class: "server", Y1: headTall - 8, Y2: end})
		}
	}
	for _, v := range d.Lives {
		l := drawnLane{X: x(at(v.Column)), Class: "process", Y1: headTall - 8, Y2: end}
		if v.From >= 0 {
			l.Y1 = lines[v.From] + 11
		}
		if v.To < len(d.Rows) {
			l.Y2 = lines[v.To]
			if d.Rows[v.To].Kind == rowMessage {
				l.Y2 += 8
			}
		}
		if v.Killed {
			l.Y2 = tops[v.To] + 4
		}
		out.Lanes = append(out.Lanes, l)
	}
	for _, s := range d.Spans {
		dx := s.Slot * barStep
		class, text := "open", d.words.LegendUncommitted
		switch s.Fate {
		case fateCommitted:
			class, text = "committed", d.words.LegendCommitted
		case fateRolledBack:
			class, text = "dropped", d.words.LegendDropped
		}
		from, to := lines[s.From], lines[s.To]
		if to > from {
			out.Bars = append(out.Bars, drawnBar{X: x(at(0)), Class: class, Dx: dx - 3, Y: from - 4, Tall: to - from + 4, TitleOfState: text})
		}
		if s.Fate != fateOpen {
			out.Ends = append(out.Ends, drawnEnd{X: x(at(0)), Class: class, Dx: dx, Y: to})
		}
	}
	for i, r := range d.Rows {
		row := drawnRow{Seq: r.Seq, Text: r.Label, LabelY: lines[i] - 6, Y: lines[i]}
		switch r.Kind {
		case rowGap:
			row.Class, row.X, row.LabelY = "gap", "50%", lines[i]+4
		case rowStart:
			row.Class, row.X, row.LabelY, row.Box = "start", x(at(r.From)), lines[i]+4, 8*width(r.Label)
			row.BoxX = -row.Box / 2
		case rowFault, rowBroken:
			row.Class, row.X, row.LabelY = "fault", "50%", lines[i]+5
			if r.Kind == rowBroken {
				row.Class = "broken"
			}
			row.Top, row.Tall = tops[i]+5, bandRow-10
			row.Text = fit(r.Label, bandLabel)
		case rowMessage:
			row.Class = messageClass(r)
			row.Title = r.Label + r.Tag + " · " + r.Title
			row.Text = fit(r.Label, chars-width(r.Tag)) + r.Tag
			from, to := at(r.From), at(r.To)
			row.Left, row.Stopped = to < from, r.Stopped
			near := at(d.besideProcess(r))
			mid := (from + near) / 2
			if r.Back {
				mid = (near + to) / 2
			}
			if r.Stopped {
				next := r.From + 1
				if row.Left {
					next = r.From - 1
				}
				mid = (from + at(next)) / 2
				to = from + (at(next)-from)*0.72
			}
			row.X, row.X1, row.X2 = x(mid), x(from), x(to)
			row.Tip = d.tip(i)
			if r.Answered {
				row.Reply = lines[i] + 5
			}
		}
		out.Rows = append(out.Rows, row)
	}
	out.Legend = d.drawnLegend()
	return out
}

// standAlone adds what surrounds a drawing in a report.
func (o *drawing) standAlone(d *diagram) {
	o.Alone = true
	o.Desc = line(strings.Join(d.items(), ". "), mostDesc)
	const room, letter = 26 + 8, 7
	x, y := 8, o.Height+10
	for i := range o.Legend {
		wide := room + letter*width(o.Legend[i].Text)
		if x > 8 && x+wide > o.Width {
			x, y = 8, y+22
		}
		o.Legend[i].X, o.Legend[i].Y = x, y
		x += wide + 18
	}
	if len(o.Legend) > 0 {
		o.Height = y + 24
	}
}

// tip is how far the head of a message that reaches PostgreSQL stays from the
// middle of the lane: it ends at the bar of its own transaction.
func (d *diagram) tip(i int) int {
	r := d.Rows[i]
	if r.Back || r.Stopped || r.on.protocol != wire.PG {
		return 0
	}
	for _, s := range d.Spans {
		if s.on != r.on || i < s.From || i > s.To {
			continue
		}
		tip := s.Slot*barStep + 3
		if i == s.To && s.Fate != fateOpen {
			tip += 2 // there is a dot
		}
		return tip
	}
	return 0
}

func messageClass(r row) string {
	class := []string{"ccv-m"}
	add := func(yes bool, name string) {
		if yes {
			class = append(class, "ccv-"+name)
		}
	}
	add(r.Back, "back")
	add(r.Uncommitted, "open")
	add(r.RolledBack, "dropped")
	add(r.Commit, "commit")
	add(r.Stopped, "stopped")
	return strings.Join(class, " ")
}

func (d *diagram) drawnLegend() []legendItem {
	w := d.words
	has := func(f func(row) bool) bool {
		for _, r := range d.Rows {
			if f(r) {
				return true
			}
		}
		return false
	}
	fates := map[fate]bool{}
	wide := false
	for _, s := range d.Spans {
		fates[s.Fate] = true
		wide = wide || s.To > s.From
	}
	var out []legendItem
	add := func(yes bool, class, text string) {
		if yes {
			out = append(out, legendItem{Class: class, Text: text})
		}
	}
	add(wide, "open", w.LegendUncommitted)
	add(fates[fateCommitted], "committed", w.LegendCommitted)
	add(fates[fateRolledBack], "dropped", w.LegendDropped)
	add(has(func(r row) bool { return r.Stopped }), "stopped", w.LegendStopped)
	add(has(func(r row) bool { return r.Answered }), "answered", w.LegendAnswered)
	return out
}

// items tells the diagram as sentences, for those who do not see it.
func (d *diagram) items() []string {
	w := d.words
	names := make([]string, len(d.Columns))
	for i, c := range d.Columns {
		names[i] = c.Head
	}
	var out []string
	for _, r := range d.Rows {
		if r.Kind != rowMessage {
			out = append(out, r.Label)
			if r.Kind == rowStart {
				names[r.From] = fill(w.Process, "n", fmt.Sprint(r.Process))
			}
			continue
		}
		s := fill(w.ListMessage, "from", names[r.From], "to", names[r.To], "message", r.Label+r.Tag)
		switch {
		case r.Stopped:
			s = fill(w.ListNotArrived, "item", s)
		case r.RolledBack:
			s = fill(w.ListRolledBack, "item", s)
		case r.Uncommitted:
			s = fill(w.ListUncommitted, "item", s)
		case r.Answered:
			s = fill(w.ListAnswered, "item", s)
		}
		out = append(out, s)
	}
	return out
}
