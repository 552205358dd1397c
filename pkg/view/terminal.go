package view

import (
	"bufio"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Colour says when text has colours. Colour never carries meaning alone: the
// same text without it says the same.
type Colour int

// The values of Colour.
const (
	ColourAuto   Colour = iota // when the writer is a terminal, and NO_COLOR and TERM do not speak against it
	ColourNever                // plain text
	ColourAlways               // ANSI escapes even into a file
)

const (
	defaultWidth = 80
	minWidth     = 40
	maxWidth     = 100 // longer lines are hard to read
)

// printer writes lines, and keeps the first error.
type printer struct {
	w      *bufio.Writer
	colour bool
	width  int
}

func newPrinter(w io.Writer, columns int, c Colour) *printer {
	p := &printer{w: bufio.NewWriter(w), colour: c == ColourAlways, width: columns}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if c == ColourAuto {
			p.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		}
		if p.width <= 0 {
			if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
				p.width = min(n, maxWidth)
			}
		}
	}
	if p.width <= 0 {
		p.width = defaultWidth
	}
	p.width = max(p.width, minWidth)
	return p
}

// style is an ANSI attribute.
type style string

const (
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

func (p *printer) in(s string, styles ...style) string {
	if !p.colour || s == "" {
		return s
	}
	codes := make([]string, len(styles))
	for i, st := range styles {
		codes[i] = string(st)
	}
	return "\x1b[" + strings.Join(codes, ";") + "m" + s + "\x1b[0m"
}

// line writes parts and ends the line. bufio.Writer keeps the first error.
func (p *printer) line(parts ...string) {
	for _, s := range parts {
		p.w.WriteString(s)
	}
	p.w.WriteByte('\n')
}

// para writes wrapped text, its first line after first and the others after as
// many blanks.
func (p *printer) para(first, text string, styles ...style) {
	indent := width(first)
	for i, l := range wrap(text, p.width-indent) {
		if i > 0 {
			first = strings.Repeat(" ", indent)
		}
		p.line(first, p.in(l, styles...))
	}
}
