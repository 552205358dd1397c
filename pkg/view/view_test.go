package view

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/html"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file under testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs; run go test ./pkg/view -update and look at the difference.\ngot:\n%s", path, got)
	}
}

var styleElement = regexp.MustCompile(`(?s)<style>.*?</style>`)

func unstyled(s string) string { return styleElement.ReplaceAllString(s, "<style>…</style>") }

func text(t *testing.T, v crash.Verdict, o TextOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, v, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func must(t *testing.T) func(string, error) string {
	return func(s string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestVerdicts(t *testing.T) {
	for name, v := range samples() {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".txt", text(t, v, TextOptions{Diagram: true}))
			if name != "huge" {
				golden(t, name+".html", unstyled(must(t)(HTML(v))))
			}
		})
	}
}

func TestTraces(t *testing.T) {
	for name, tr := range map[string]*wire.Trace{
		"lost": lost(), "uncommitted": uncommitted(), "three": three(), "golden": goldenTrace(), "silent": silent(), "calls": calls(), "none": nil,
	} {
		t.Run(name, func(t *testing.T) {
			o := TraceOptions{Broken: "no-lost-event", Width: 100}
			if name == "golden" || name == "none" {
				o.Broken = ""
			}
			var b bytes.Buffer
			if err := TraceText(&b, tr, o); err != nil {
				t.Fatal(err)
			}
			golden(t, "trace-"+name+".txt", b.String())
			golden(t, "trace-"+name+".svg", unstyled(must(t)(TraceSVG(tr, o))))
		})
	}
}

func TestAPassIsShort(t *testing.T) {
	v := passing()
	for i := range 40 {
		v.Notes = append(v.Notes, fmt.Sprintf("note %d", i))
		v.Invariants = append(v.Invariants, crash.InvariantResult{Name: fmt.Sprintf("invariant-number-%d", i), Held: true})
	}
	if n := strings.Count(text(t, v, TextOptions{}), "\n"); n > 12 {
		t.Errorf("a passing verdict takes %d lines", n)
	}
}

func TestHeadline(t *testing.T) {
	fails := failing()
	noFault := crash.Verdict{Exercise: "outbox/place", Verdict: "fail",
		Points:  []crash.PointResult{{At: "start", Outcome: crash.Violated, Violation: "no-lost-event"}},
		Failure: &crash.Failure{Invariant: "no-lost-event", At: "start"}}
	variant := passing()
	variant.Verdict = "fail"
	variant.Points[1].Outcome, variant.Points[1].Violation = crash.Violated, "no-lost-event"
	for want, v := range map[string]crash.Verdict{
		"outbox/relay: PASS — survived all 40 points\n":                                                      passing(),
		"outbox/relay: FAIL — survived 36 of 38 points; no-lost-event broke\n":                               fails,
		"outbox/place: FAIL — it fails even without a fault; no-lost-event broke\n":                          noFault,
		"outbox/relay: FAIL — survived 39 of 40 points; it fails in the run “no-queue-yet”; no-lost-event b": variant,
		"outbox/relays: FAIL — survived 32 of 40 points; it hung at 8 points\n":                              hung(),
		"outbox/relay: FAIL — there is nothing to crash yet\n":                                               notCompiled(),
		"outbox/place: UNJUDGED — the judge could not finish; this does not count against you\n":             unjudged(),
	} {
		if got := text(t, v, TextOptions{}); !strings.HasPrefix(got, want) {
			t.Errorf("want %q, got %q", want, strings.SplitAfter(got, "\n")[0])
		}
	}
}

// A story that the judge told is not told twice.
func TestStoryIsNotRepeated(t *testing.T) {
	v := failing()
	v.Failure.Story = []string{
		"Before the fault the program had sent COMMIT.",
		"At point p1.amqp1>5, after COMMIT and before basic.publish order.placed, the process was killed.",
		"After it the program sent nothing more that lasts.",
		v.Failure.Detail,
	}
	got := text(t, v, TextOptions{})
	for _, s := range []string{"At point p1.amqp1>5", "it is lost for ever", "Before the fault", "After it the program"} {
		if n := strings.Count(strings.Join(strings.Fields(got), " "), s); n != 1 {
			t.Errorf("%q is there %d times", s, n)
		}
	}
}

// escapes are what may not reach a terminal or a page.
func actsOnTerminal(r rune) bool {
	return r != '\n' && r != '\u200d' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Cs, unicode.Co)
}

func TestTextOnlyShows(t *testing.T) {
	for name, v := range samples() {
		for _, s := range []string{
			text(t, v, TextOptions{Diagram: true}), text(t, v, TextOptions{Long: true, Width: 40}),
			must(t)(HTML(v)), must(t)(Document(v)), must(t)(MatrixHTML(v)),
		} {
			if i := strings.IndexFunc(s, actsOnTerminal); i >= 0 {
				t.Errorf("%s: %q acts on the terminal", name, s[max(0, i-20):min(len(s), i+20)])
			}
		}
	}
}

func TestTextFitsItsWidth(t *testing.T) {
	for _, name := range []string{"pass", "lost-event", "hung"} {
		for _, n := range []int{60, 80, 100} {
			for i, l := range strings.Split(text(t, samples()[name], TextOptions{Width: n, Diagram: true, Long: true}), "\n") {
				if i > 0 && width(l) > n && !strings.Contains(l, "crashcourse replay") && !strings.Contains(l, "   ") {
					t.Errorf("%s at %d: %d columns: %q", name, n, width(l), l)
				}
			}
		}
	}
}

func TestColourSaysNothingAlone(t *testing.T) {
	for name, v := range samples() {
		o := TextOptions{Diagram: true, Long: true}
		plain := text(t, v, o)
		o.Colour = ColourAlways
		coloured := text(t, v, o)
		if !strings.Contains(coloured, "\x1b[") {
			t.Errorf("%s: no colours", name)
		}
		if got := ansi.ReplaceAllString(coloured, ""); got != plain {
			t.Errorf("%s: the text differs without colours", name)
		}
	}
}

func TestFileHasNoColours(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Text(f, failing(), TextOptions{}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("\x1b")) {
		t.Error("a file has terminal escapes")
	}
}

type brokenWriter struct{}

var errBroken = errors.New("the pipe is broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestWriteErrorsAreReturned(t *testing.T) {
	for name, err := range map[string]error{
		"Text":       Text(brokenWriter{}, huge(), TextOptions{}),
		"MatrixText": MatrixText(brokenWriter{}, huge(), TextOptions{}),
		"TraceText":  TraceText(brokenWriter{}, lost(), TraceOptions{}),
	} {
		if !errors.Is(err, errBroken) {
			t.Errorf("%s returns %v", name, err)
		}
	}
}

// monster has the most of everything, all of it in need of escapes.
func monster() crash.Verdict {
	v := huge()
	v.Points, v.Failure.Trace.Messages = v.Points[:400], v.Failure.Trace.Messages[:600]
	bad := strings.Repeat(`"'&<>`, 400)
	for i := range v.Points {
		v.Points[i].Message, v.Points[i].Violation, v.Points[i].Outcome = bad, bad, crash.Violated
	}
	for i := range 100 {
		v.Invariants = append(v.Invariants, crash.InvariantResult{Name: fmt.Sprint(i, bad), Says: bad})
		v.Notes = append(v.Notes, bad)
		v.Failure.Hints = append(v.Failure.Hints, bad)
		v.Failure.Story = append(v.Failure.Story, bad)
	}
	for i := range v.Failure.Trace.Messages {
		v.Failure.Trace.Messages[i].Name, v.Failure.Trace.Messages[i].Detail = fmt.Sprint(i, bad), bad
	}
	big := crash.Table{Name: bad, When: bad}
	for range 30 {
		big.Columns = append(big.Columns, bad)
	}
	for range 100 {
		big.Rows = append(big.Rows, big.Columns)
	}
	v.Failure.Tables = slices.Repeat([]crash.Table{big}, 20)
	v.Output, v.Error = strings.Repeat(bad+"\n", 100), strings.Repeat(bad+"\n", 100)
	return v
}

func TestHTMLIsBounded(t *testing.T) {
	all := samples()
	all["monster"] = monster()
	for name, v := range all {
		for what, f := range map[string]func(crash.Verdict) (string, error){"HTML": HTML, "Document": Document, "MatrixHTML": MatrixHTML} {
			s := must(t)(f(v))
			if len(s) > MaxHTML {
				t.Errorf("%s of %s takes %d bytes", what, name, len(s))
			}
		}
		if v.Failure != nil && v.Failure.Trace != nil {
			for what, f := range map[string]func(*wire.Trace, TraceOptions) (string, error){"TraceSVG": TraceSVG, "TraceHTML": TraceHTML} {
				if s := must(t)(f(v.Failure.Trace, TraceOptions{})); len(s) > MaxHTML {
					t.Errorf("%s of %s takes %d bytes", what, name, len(s))
				}
			}
		}
	}
}

var (
	known = strings.Fields(`html head body main meta title style div span section p b bdi code pre ol ul li dl dt dd
		table caption thead tbody tr th td details summary svg g line rect circle path text desc`)
	knownAttributes = strings.Fields(`class lang role aria-label aria-level aria-hidden title tabindex style scope colspan
		data-point data-seq charset name content http-equiv width height viewbox x y x1 x2 y1 y2 cx cy r rx d dx dy overflow transform`)
	size = regexp.MustCompile(`^min-width:\d+px;max-width:\d+px$`)
)

// TestHTMLIsInert parses each page and accepts only what the templates wrote:
// no element, attribute, address or handler came out of a verdict.
func TestHTMLIsInert(t *testing.T) {
	for name, v := range samples() {
		pages := map[string]string{"HTML": must(t)(HTML(v)), "Document": must(t)(Document(v)), "MatrixHTML": must(t)(MatrixHTML(v))}
		if v.Golden != nil {
			pages["TraceHTML"] = must(t)(TraceHTML(v.Golden, TraceOptions{Title: attack, Broken: attack}))
		}
		for what, page := range pages {
			root, err := html.Parse(strings.NewReader(page))
			if err != nil {
				t.Fatalf("%s of %s: %v", what, name, err)
			}
			for n := range root.Descendants() {
				switch n.Type {
				case html.CommentNode:
					t.Errorf("%s of %s: comment %q", what, name, n.Data)
				case html.ElementNode:
					if !slices.Contains(known, n.Data) {
						t.Errorf("%s of %s: element %s", what, name, n.Data)
					}
					for _, a := range n.Attr {
						if !slices.Contains(knownAttributes, strings.ToLower(a.Key)) {
							t.Errorf("%s of %s: attribute %s=%q of %s", what, name, a.Key, a.Val, n.Data)
						}
						if a.Key == "style" && !size.MatchString(a.Val) {
							t.Errorf("%s of %s: style %q", what, name, a.Val)
						}
					}
				}
			}
			for _, css := range styleElement.FindAllString(page, -1) {
				for _, ask := range []string{"url(", "@import", "http"} {
					if strings.Contains(css, ask) {
						t.Errorf("%s of %s: the styles contain %s", what, name, ask)
					}
				}
			}
		}
	}
}

// Each rule of a fragment applies inside a fragment only.
func TestStylesAreScoped(t *testing.T) {
	css := string(must2(styles("theme.css", "diagram.css", "report.css")))
	css = regexp.MustCompile(`@(media|container)[^{]*\{`).ReplaceAllString(css, "}")
	for _, rule := range regexp.MustCompile(`([^{}]+)\{`).FindAllStringSubmatch(css, -1) {
		for _, selector := range strings.Split(regexp.MustCompile(`\([^)]*\)`).ReplaceAllString(rule[1], ""), ",") {
			if !strings.Contains(selector, ".ccv") {
				t.Errorf("%q reaches outside", selector)
			}
		}
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestMatrixIsATable(t *testing.T) {
	root, err := html.Parse(strings.NewReader(must(t)(HTML(failing()))))
	if err != nil {
		t.Fatal(err)
	}
	attr := func(n *html.Node, key string) string {
		for _, a := range n.Attr {
			if a.Key == key {
				return a.Val
			}
		}
		return ""
	}
	var columns, rows, cells int
	var broke []string
	for n := range root.Descendants() {
		if n.Data == "th" && attr(n, "scope") == "col" && n.Parent.Parent.Parent.Data == "table" && attr(n.Parent.Parent.Parent, "class") == "ccv-grid" {
			columns++
		}
		if n.Data == "th" && attr(n, "scope") == "row" {
			rows++
		}
		if n.Data == "td" && attr(n.Parent, "data-point") != "" {
			cells++
			c := n.FirstChild
			if attr(c, "role") != "img" || attr(c, "title") == "" || c.FirstChild == nil || c.FirstChild.Data == "" {
				t.Errorf("cell %v of %s says nothing without colour", c.Attr, attr(n.Parent, "data-point"))
			}
			if strings.Contains(attr(c, "class"), "ccv-broke") {
				broke = append(broke, attr(c, "title"))
			}
		}
	}
	if columns != 6 || rows != 14 || cells != rows*5 {
		t.Errorf("%d columns, %d rows, %d cells", columns, rows, cells)
	}
	want := []string{
		"kill at p1.amqp1>5, before basic.publish order.placed #3: broke – no-lost-event",
		"nack at p1.amqp1>5, before basic.publish order.placed #3: broke – no-lost-event",
	}
	if !slices.Equal(broke, want) {
		t.Errorf("broken cells: %q", broke)
	}
}

func TestMatrixOrder(t *testing.T) {
	// The judge tries points in an order of its own; the matrix has the run's.
	v := passing()
	slices.Reverse(v.Points)
	var at []string
	for _, r := range newMatrix(v, roomy()).Groups[0].Rows {
		at = append(at, r.At)
	}
	want := strings.Fields("p1.amqp1>1 p1.amqp1>2 p1.pg1>1 p1.pg1>2 p1.pg1>3 p1.pg1>4 p1.pg1<4 p1.amqp1>3 p1.amqp1>4 p1.amqp1>5 p1.amqp1<3 p1.amqp1<4 p1.amqp1<5 p1.pg1>5")
	if !slices.Equal(at, want) {
		t.Errorf("order %v", at)
	}
}

func TestMatrixOfSecondCrashes(t *testing.T) {
	v := crash.Verdict{Points: []crash.PointResult{
		{At: "p1.pg1>2", Fault: "kill", Outcome: crash.Held},
		{At: "p1.pg1>2", Fault: "kill", Outcome: crash.Unreached, Then: "kill@p2.pg1>9"},
		{At: "p1.pg1>2", Fault: "kill", Outcome: crash.Violated, Then: "kill@p2.pg1>3", Violation: "effect-once"},
		{At: "p2.pg1>1", Fault: "cut", Outcome: crash.Unreached},
	}}
	m := newMatrix(v, roomy())
	if len(m.Groups) != 2 || m.tally != (tally{Points: 2, Survived: 1, Unreached: 2}) {
		t.Fatalf("%+v", m)
	}
	c := m.Groups[0].Rows[0].Cells[0]
	if c.Kind != cellViolated || c.Runs != 3 || c.Details[0] != "effect-once (kill@p2.pg1>3)" {
		t.Errorf("%+v", c)
	}
}

func TestSVGIsXML(t *testing.T) {
	for name, v := range samples() {
		if v.Failure == nil || v.Failure.Trace == nil {
			continue
		}
		s := must(t)(TraceSVG(v.Failure.Trace, TraceOptions{Title: attack, Broken: attack}))
		dec := xml.NewDecoder(strings.NewReader(s))
		var elements []string
		for {
			tok, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if e, ok := tok.(xml.StartElement); ok && !slices.Contains(elements, e.Name.Local) {
				elements = append(elements, e.Name.Local)
			}
		}
		for _, e := range elements {
			if !slices.Contains(known, e) {
				t.Errorf("%s: element %s", name, e)
			}
		}
	}
}

func TestWindowCountsWhatItHides(t *testing.T) {
	for _, tr := range []*wire.Trace{lost(), goldenTrace(), three(), huge().Golden} {
		entries := entriesOf(tr, TraceOptions{})
		for _, most := range []int{1, 5, 12, 36, 100000} {
			seen := 0
			for _, e := range window(foldRepeats(foldAnswers(entries)), most) {
				switch {
				case e.hidden > 0 && e.times > 0:
					seen += e.hidden
				case e.hidden > 0:
					seen += e.hidden
				case e.answered:
					seen += 2
				default:
					seen++
				}
			}
			want := len(entries)
			if seen > want || seen < want-want/3 {
				t.Errorf("of %d messages %d are shown or counted at %d", want, seen, most)
			}
		}
	}
}

func TestLayout(t *testing.T) {
	d := newDiagram(uncommitted(), TraceOptions{}, roomy())
	var fates []fate
	for _, s := range d.Spans {
		fates = append(fates, s.Fate)
	}
	if !slices.Equal(fates, []fate{fateRolledBack, fateCommitted}) {
		t.Errorf("fates %v", fates)
	}
	if len(d.Columns) != 3 {
		t.Errorf("a restart has a lane of its own: %v", d.Columns)
	}
	if len(d.Lives) != 2 || !d.Lives[0].Killed || d.Lives[1].Killed || d.Lives[1].From <= d.Lives[0].To {
		t.Errorf("lives %+v", d.Lives)
	}
	if n := len(newDiagram(three(), TraceOptions{}, roomy()).Columns); n != 5 {
		t.Errorf("three processes at once have %d lanes", n)
	}
}

// A fault that the trace does not record is marked where the options say.
func TestPointOfOptions(t *testing.T) {
	tr := lost()
	for i := range tr.Messages {
		tr.Messages[i].Fault = ""
	}
	var b strings.Builder
	if err := TraceText(&b, tr, TraceOptions{Point: "p1.amqp1>5", Fault: "kill"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "process 1 killed at p1.amqp1>5") {
		t.Error(b.String())
	}
}

// Hundreds of processes and connections at once stay a picture.
func TestCrowd(t *testing.T) {
	tp := newTape()
	for range 3 {
		for p := 1; p <= 500; p++ {
			tp.query(p, "BEGIN", wire.NoEffect)
			tp.query(p, fmt.Sprintf("UPDATE t%d", p), wire.Write)
		}
	}
	d := newDiagram(&tp.trace, TraceOptions{}, roomy())
	if len(d.Columns) != mostLanes+1 || len(d.Rows) > 60 {
		t.Errorf("%d columns, %d rows", len(d.Columns), len(d.Rows))
	}
	if s := must(t)(TraceSVG(&tp.trace, TraceOptions{})); len(s) > MaxHTML {
		t.Errorf("%d bytes", len(s))
	}
}

func TestLine(t *testing.T) {
	for _, c := range []struct {
		in   string
		max  int
		want string
	}{
		{"", 5, ""},
		{"  a\t b\r\nc ", 9, "a b c"},
		{"abcdef", 6, "abcdef"},
		{"abcdefg", 6, "abcde…"},
		{"abcdef   ", 6, "abcdef"},
		{"a\x1b[31mb\x00\x7f", 20, "a␛[31mb␀␡"},
		{"\u202eabc\u2066", 9, "\ufffdabc\ufffd"},
		{"\xff\xfe", 9, "\ufffd\ufffd"},
		{"Z\u0300\u0300\u0300\u0300\u0300x", 9, "Z\u0300\u0300\u0300x"},
		{"日本語日本語", 3, "日本…"},
	} {
		if got := line(c.in, c.max); got != c.want {
			t.Errorf("line(%q, %d) = %q, want %q", c.in, c.max, got, c.want)
		}
	}
}

func TestBlock(t *testing.T) {
	lines, left := block("\n\x1b[1mone\x1b[0m\n\ttwo\nthree\n\n", 2, 20, false)
	if !slices.Equal(lines, []string{"one", "    two"}) || left != 1 {
		t.Errorf("%q %d", lines, left)
	}
	lines, left = block(strings.Repeat("x\n", 100), 3, 20, true)
	if len(lines) != 3 || left != 97 {
		t.Errorf("%q %d", lines, left)
	}
	if lines, left = block(" \n", 3, 20, true); len(lines) != 0 || left != 0 {
		t.Errorf("%q %d", lines, left)
	}
}

func TestWrapAndFit(t *testing.T) {
	if got := wrap("one two three  four", 9); !slices.Equal(got, []string{"one two", "three", "four"}) {
		t.Errorf("%q", got)
	}
	if got := wrap("a 123456789012", 8); !slices.Equal(got, []string{"a", "12345678", "9012"}) {
		t.Errorf("%q", got)
	}
	if got := fit("日本語", 5); got != "日本…" {
		t.Errorf("%q", got)
	}
	if got := fit("日本語", 0); got != "" {
		t.Errorf("%q", got)
	}
}

func TestKeepRows(t *testing.T) {
	keep := keepRows(100, map[int]bool{50: true, 99: true, 700: true, -1: true}, 7)
	var got []int
	for i, k := range keep {
		if k {
			got = append(got, i)
		}
	}
	if !slices.Equal(got, []int{0, 1, 49, 50, 51, 98, 99}) {
		t.Errorf("%v", got)
	}
}

// Every word that a report may need is there.
func TestWordsAreComplete(t *testing.T) {
	v := reflect.ValueOf(*english())
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s is empty", v.Type().Field(i).Name)
		}
	}
	w := english()
	if a, b := slices.Sorted(maps.Keys(w.FaultDid)), slices.Sorted(maps.Keys(w.FaultHere)); !slices.Equal(a, b) {
		t.Errorf("faults %v and %v", a, b)
	}
}
