package lab

import (
	_ "embed"
	"fmt"
	"html"
	"io"
	"os"
	"strings"

	"github.com/janpfeifer/gonb/gonbui"
	"github.com/janpfeifer/gonb/gonbui/protocol"
)

// output is where a cell shows things: the notebook, or a terminal.
type output struct {
	text io.Writer // nil in a notebook
}

func newOutput() *output {
	if gonbui.IsNotebook {
		return &output{}
	}
	return &output{text: os.Stdout}
}

// show shows the same thing in one of two forms.
func (o *output) show(rich, text string) {
	if o.text != nil {
		fmt.Fprintln(o.text, strings.TrimRight(text, "\n"))
		return
	}
	gonbui.SendData(&protocol.DisplayData{Data: map[protocol.MIMEType]any{
		protocol.MIMETextHTML:  rich,
		protocol.MIMETextPlain: text,
	}})
	gonbui.Sync() // what is still on its way when the cell ends is dropped
}

// say shows a line of prose.
func (o *output) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	o.show(`<div class="ccl">`+html.EscapeString(text)+`</div>`, text)
}

//go:embed lab.css
var css string

// framed puts what is shown under the package's style sheet.
func framed(inner string) string {
	return `<div class="ccl"><style>` + squeeze(css) + `</style>` + inner + `</div>`
}

func squeeze(css string) string {
	var b strings.Builder
	for l := range strings.Lines(css) {
		b.WriteString(strings.TrimSpace(l))
	}
	return b.String()
}

// Show shows something that a cell has made: rich in a notebook, text elsewhere.
func Show(rich, text string) { newOutput().show(rich, text) }

// Grid makes a table for [Show], in both forms.
func Grid(caption string, columns []string, rows [][]string) (rich, text string) {
	g := &grid{caption: caption, columns: columns, rows: rows}
	return framed(g.html()), g.text()
}

// Fatal ends the cell with err, as everything in this package does.
func Fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
