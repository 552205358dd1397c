package lab

import (
	"fmt"
	"html"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/step"
)

// maxRows is how many rows of a table are shown.
const maxRows = 30

// Table shows the rows that a query finds. A uuid is cut to its last six
// characters and a time to its time of day, to fit.
func (l *Lab) Table(sql string, args ...any) {
	if l.role != nil {
		return
	}
	g, err := l.query(sql, args)
	if err != nil {
		l.fail(fmt.Errorf("lab: PostgreSQL does not like %q: %w", step.Shorten(sql, 60), err))
	}
	l.out.show(framed(g.html()), g.text())
}

// Int returns the number that a query finds, to be used in a cell that counts. It
// is 0 in the processes that the cell starts.
func (l *Lab) Int(sql string, args ...any) int {
	if l.role != nil {
		return 0
	}
	var n int
	if err := l.DB().QueryRow(l.ctx, sql, args...).Scan(&n); err != nil {
		l.fail(fmt.Errorf("lab: PostgreSQL finds no number for %q: %w", step.Shorten(sql, 60), err))
	}
	return n
}

func (l *Lab) query(sql string, args []any) (*grid, error) {
	// Text, as the server writes it, suits a reader better than Go's idea of it.
	rows, err := l.DB().Query(l.ctx, sql, append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	g := &grid{caption: step.Shorten(sql, 200), code: true}
	for _, f := range rows.FieldDescriptions() {
		g.columns = append(g.columns, f.Name)
	}
	for rows.Next() {
		if len(g.rows) == maxRows {
			g.more++
			continue
		}
		var row []string
		for i, v := range rows.RawValues() {
			row = append(row, step.CellText(rows.FieldDescriptions()[i].DataTypeOID, v))
		}
		g.rows = append(g.rows, row)
	}
	return g, rows.Err()
}

// grid is a table to be shown.
type grid struct {
	caption string
	code    bool // the caption is code
	columns []string
	rows    [][]string
	notes   bool // the last column holds remarks
	more    int  // rows that are not shown
}

func (g *grid) html() string {
	var b strings.Builder
	caption := html.EscapeString(g.caption)
	label := caption
	if g.code {
		caption = "<code>" + caption + "</code>"
	}
	// A caption would be no wider than the table.
	b.WriteString(`<p class="ccl-cap">` + caption + `</p><table aria-label="` + label + `"><thead><tr>`)
	for _, c := range g.columns {
		b.WriteString(`<th scope="col">` + html.EscapeString(c) + "</th>")
	}
	b.WriteString("</tr></thead><tbody>")
	for _, row := range g.rows {
		b.WriteString("<tr>")
		for i, v := range row {
			if g.notes && i == len(row)-1 {
				b.WriteString(`<td class="ccl-note">`)
			} else {
				b.WriteString("<td>")
			}
			b.WriteString(html.EscapeString(v) + "</td>")
		}
		b.WriteString("</tr>")
	}
	if s := g.tail(); s != "" {
		fmt.Fprintf(&b, `<tr><td class="ccl-none" colspan="%d">%s</td></tr>`, max(1, len(g.columns)), s)
	}
	b.WriteString("</tbody></table>")
	return b.String()
}

func (g *grid) tail() string {
	switch {
	case g.more > 0:
		return fmt.Sprintf("… and %d more", g.more)
	case len(g.rows) == 0:
		return "(none)"
	}
	return ""
}

func (g *grid) text() string {
	widths := make([]int, len(g.columns))
	for _, row := range append([][]string{g.columns}, g.rows...) {
		for i, v := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(v))
		}
	}
	var b strings.Builder
	line := func(row []string) {
		var l strings.Builder
		for i, v := range row {
			l.WriteString(v + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(v)+2))
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	b.WriteString(g.caption + "\n")
	line(g.columns)
	for _, row := range g.rows {
		line(row)
	}
	if s := g.tail(); s != "" {
		b.WriteString(s + "\n")
	}
	return b.String()
}
