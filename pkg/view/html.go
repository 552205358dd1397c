package view

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"

	"crashcourse/pkg/crash"
)

// MaxHTML is the most bytes that [HTML] and [Document] return, whatever the
// verdict contains.
const MaxHTML = 300 << 10

// HTML draws v as one fragment for the text/html output of a notebook cell. It
// has no ids, scripts or links, its styles touch nothing else on the page, and
// everything in it that a program wrote is escaped. Two fragments may stand on
// one page. It follows JupyterLab's theme, VS Code's, or else the system's.
func HTML(v crash.Verdict) (string, error) { return render(v, "report", 3) }

// Document draws v as a whole page, for a file or a tab of its own. Its content
// security policy forbids scripts and requests.
func Document(v crash.Verdict) (string, error) { return render(v, "document", 1) }

// MatrixHTML draws only the crash matrix of v, as a fragment like that of
// [HTML].
func MatrixHTML(v crash.Verdict) (string, error) { return render(v, "sweep", 3) }

func render(v crash.Verdict, name string, level int) (string, error) {
	tmpl, err := pages()
	if err != nil {
		return "", err
	}
	css, err := styles("theme.css", "diagram.css", "report.css")
	if err != nil {
		return "", err
	}
	pageCSS, err := styles("page.css")
	if err != nil {
		return "", err
	}
	for _, lim := range []limits{roomy(), tight()} {
		h := newHTMLReport(v, lim)
		h.Level, h.Sub, h.CSS, h.PageCSS = level, level+1, css, pageCSS
		var b strings.Builder
		if err := tmpl.ExecuteTemplate(&b, name, h); err != nil {
			return "", fmt.Errorf("view: draw the verdict on %s: %w", h.R.Exercise, err)
		}
		if b.Len() <= MaxHTML {
			return b.String(), nil
		}
	}
	return "", fmt.Errorf("view: draw the verdict on %s: it takes more than %d bytes even when shortened", line(v.Exercise, 80), MaxHTML)
}

// htmlReport is what the templates read.
type htmlReport struct {
	R            *report
	W            *words
	CSS, PageCSS template.CSS
	Level, Sub   int // of headings

	Name, PageTitle, State string
	Headline               []string
	MarkPath               string
	Case                   bool // there is a failing schedule to tell
	LongLead               bool
	Drawing                *drawing
	DrawingStyle           template.HTMLAttr
	Items                  []string
	Swept                  bool
	Whole                  []htmlCell
	Grids                  []htmlGrid
	Span                   int
	Legend                 []htmlCell

	ErrorMore, NotesMore, OutputMore, TableMore, MoreFaults string
}

type htmlCell struct {
	Name, Class, Sign, Title, Text string
	Here                           bool
}

// htmlGrid is a part of the matrix that is not too tall.
type htmlGrid struct {
	Caption string
	Rows    []htmlRow
}

type htmlRow struct {
	At, Message, More string
	Broke             bool
	Cells             []htmlCell
}

// tallest is how many points stand under each other before the matrix goes on
// beside them.
const tallest = 40

func newHTMLReport(v crash.Verdict, lim limits) *htmlReport {
	r := newReport(v, lim)
	w := r.words
	h := &htmlReport{R: r, W: w, State: r.stateWord(), Headline: r.Headline}
	h.Name = fill(w.VerdictOf, "exercise", r.Exercise, "state", h.State)
	h.PageTitle = fill(w.PageTitle, "exercise", r.Exercise, "state", h.State)
	h.MarkPath = "M19 10v11M19 27.5v.1"
	switch r.State {
	case verdictPass:
		h.MarkPath = "M11 20l6 6 11-13"
	case verdictFail:
		h.MarkPath = "M12.5 12.5l13 13M25.5 12.5l-13 13"
	}
	h.Case = r.State == verdictFail && v.Failure != nil
	for _, s := range r.Lead {
		h.LongLead = h.LongLead || s.Code && len(s.Text) > 40
	}
	if r.Diagram != nil && len(r.Diagram.Rows) > 0 {
		h.setDiagram(r.Diagram)
	}
	h.ErrorMore = w.MoreLines.of(r.ErrorMore)
	h.OutputMore = w.MoreLines.of(r.OutputMore)
	h.NotesMore = fill(w.MoreNotes, "n", strconv.Itoa(r.NotesMore))
	h.TableMore = w.MoreTables.of(r.TableMore)
	h.MoreFaults = w.MoreFaults.of(r.Matrix.MoreFaults)
	h.setMatrix()
	return h
}

func (h *htmlReport) setDiagram(d *diagram) {
	drawn := d.draw()
	h.Drawing = &drawn
	h.DrawingStyle = template.HTMLAttr(fmt.Sprintf(`style="min-width:%dpx;max-width:%dpx"`, drawn.Least, drawn.Most))
	h.Items = d.items()
}

func (h *htmlReport) setMatrix() {
	m, w := h.R.Matrix, h.W
	h.Swept = len(m.Faults) > 0 || len(m.Whole) > 0
	h.Span = len(m.Faults) + 1
	used := map[cellKind]bool{}
	for _, run := range m.Whole {
		used[run.cell.Kind] = true
		name := run.Name
		if name == "" {
			name = w.WithoutFault
		}
		outcome := h.outcome(run.cell)
		if run.Says != "" {
			outcome = run.Says + "; " + outcome
		}
		c := h.cell(run.cell, fill(w.CellTitleRun, "run", name, "outcome", outcome))
		c.Name = name
		h.Whole = append(h.Whole, c)
	}
	for _, g := range m.Groups {
		parts := (len(g.Rows) + tallest - 1) / tallest
		each := (len(g.Rows) + parts - 1) / parts
		for from := 0; from < len(g.Rows); from += each {
			rows := g.Rows[from:min(from+each, len(g.Rows))]
			grid := htmlGrid{}
			if len(m.Groups) > 1 && g.Process > 0 {
				grid.Caption = fill(w.Process, "n", strconv.Itoa(g.Process))
			}
			for _, row := range rows {
				out := htmlRow{At: row.At, Message: row.Message, Broke: row.Broke}
				if row.Skipped > 0 {
					out.More = w.MorePoints.of(row.Skipped)
					if row.SkippedHeld {
						out.More = w.MorePointsHeld.of(row.Skipped)
					}
				}
				for i, c := range row.Cells {
					used[c.Kind] = true
					title := w.Legend[cellNone]
					if c.Kind != cellNone {
						title = fill(w.CellTitle, "fault", m.Faults[i], "point", row.At, "message", row.Message, "outcome", h.outcome(c))
					}
					out.Cells = append(out.Cells, h.cell(c, title))
				}
				grid.Rows = append(grid.Rows, out)
			}
			h.Grids = append(h.Grids, grid)
		}
	}
	for _, k := range legendOrder {
		if used[k] {
			h.Legend = append(h.Legend, htmlCell{Class: k.class(), Sign: k.sign(), Text: w.Legend[k]})
		}
	}
}

func (h *htmlReport) cell(c cell, title string) htmlCell {
	return htmlCell{Class: c.Kind.class(), Sign: c.Kind.sign(), Title: title, Here: c.Broke}
}

// outcome says what came of the runs behind a cell.
func (h *htmlReport) outcome(c cell) string {
	text := h.W.Legend[c.Kind]
	if len(c.Details) > 0 {
		text += " – " + strings.Join(c.Details, "; ")
	}
	if c.Runs > 1 {
		text = fill(h.W.Recovery, "outcome", text, "n", strconv.Itoa(c.Runs))
	}
	return text
}

// htmlTable is a table with what its template asks.
type htmlTable struct {
	table
	W         *words
	AnyMarked bool
	Span      int
	More      string
}

// Table prepares t for its template.
func (h *htmlReport) Table(t table) htmlTable {
	out := htmlTable{table: t, W: h.W, Span: max(len(t.Columns), 1), More: h.W.MoreColumns.of(t.MoreColumns)}
	for _, row := range t.Rows {
		out.AnyMarked = out.AnyMarked || row.Marked
	}
	if out.AnyMarked {
		out.Span++
	}
	return out
}

// Skip says how many rows were left out.
func (t htmlTable) Skip(n int) string { return t.W.MoreRows.of(n) }

// hints is a ladder: the first hint, and the others one inside the other.
type hints struct {
	W     *words
	First string
	Rest  []string
}

// Hints prepares a ladder for its template.
func (h *htmlReport) Hints(all []string) hints { return hints{h.W, all[0], all[1:]} }

// Next is the ladder without its first hint.
func (l hints) Next() hints { return hints{l.W, l.Rest[0], l.Rest[1:]} }
