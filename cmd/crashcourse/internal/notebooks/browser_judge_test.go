package notebooks

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"crashcourse/pkg/progress"
	"crashcourse/pkg/state"
)

// gradedCell answers a graded cell three times: not at all, wrongly, rightly.
func (d *desk) gradedCell(t *testing.T) {
	const id, file = "outbox/place", "outbox-place.json"
	dir, err := state.Dir()
	if err != nil {
		t.Fatal(err)
	}
	own := func() []byte {
		b, err := os.ReadFile(filepath.Join(dir, "progress", file))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return b
	}
	before := own()

	b := d.open(t, "graded", d.shortened(t, "01_outbox", "setup", "ex-place"))
	b.sub("starter", func() {
		b.runUntil("return exercise.ErrNotImplemented")
		b.runCell()
		b.until("there is a report", `report`)
		b.must("the report says that it failed", `report.matches('.ccv-fail') && /fail/i.test(report.querySelector('.ccv-h1').innerText)`)
		b.must("it says why", `/not implemented/i.test(report.innerText)`)
		b.must("it can be read", `report.getBoundingClientRect().width > 500 && report.querySelector('.ccv-h1').getBoundingClientRect().height > 15`)
		b.must("it has a name for those who do not see it", `/outbox\/place/.test(report.getAttribute('aria-label'))`)
		b.accessible("report", `report`)
	})
	b.sub("mutant", func() {
		b.answer(answer(b.t, id, "solutions/outbox/mutants/place/twotx/twotx.go"))
		b.until("the report says what broke", `report?.matches('.ccv-fail') && /no-lost-event/.test(report.innerText)`)
		b.failingPoint()
		for _, theme := range themes {
			b.useTheme(theme)
			b.themed("report", theme, `report`)
			b.accessible("report, "+theme.name, `report`)
			b.accessible("recorded view with its matrix, "+theme.name, `recorded.host`)
		}
		b.useTheme(themes[0])
		// With its tables it would be too tall for a README.
		b.eval(`void (report.querySelector('.ccv-facing').hidden = true)`, nil)
		b.capture("verdict.png", frameOf(`report`, 8))
		if said := b.status(); !strings.HasPrefix(said, "fail") {
			b.t.Errorf("the wrong answer does not count as tried: %s", said)
		}
	})
	b.sub("reference", func() {
		b.answer(answer(b.t, id, "solutions/outbox/reference/place/place.go"))
		b.until("the report says that it passed", `report?.matches('.ccv-pass') && /pass/i.test(report.querySelector('.ccv-h1').innerText)`)
		b.must("nothing in the matrix broke", `!report.querySelector('.ccv-broke') && report.querySelectorAll('.ccv-grid .ccv-held').length > 3`)
		b.accessible("report", `report`)
		if said := b.status(); !strings.HasPrefix(said, "pass") {
			b.t.Errorf("the right answer does not count: %s", said)
		}
	})

	all, aside, err := progress.Load(d.lab.opt.State)
	if err != nil || len(aside) > 0 {
		t.Fatalf("the progress cannot be read: %v %q", err, aside)
	}
	at := slices.IndexFunc(all, func(e progress.Exercise) bool { return e.Exercise == id })
	if at < 0 || all[at].Tries != 3 || all[at].Passed == nil {
		t.Errorf("the progress is %+v, want three tries at %s and a pass", all, id)
	}
	if !bytes.Equal(before, own()) {
		t.Error("the test has changed the learner's own progress")
	}
}

// failingPoint looks at the report of an answer that a kill breaks, and goes
// from the matrix to the failing run.
func (b *tab) failingPoint() {
	b.t.Helper()
	b.must("the failing cell of the matrix has a sign and words, not only a colour", `[...report.querySelectorAll('.ccv-grid tbody .ccv-broke')].some((c) =>
		c.textContent.trim() === '✗' && /kill/.test(c.title) && /broke/i.test(c.title))`)
	b.must("the signs are explained", `[...report.querySelectorAll('.ccv-legend li')].some((l) => l.textContent.includes('✗') && l.textContent.trim().length > 3)`)

	b.press("recorded", "Crash matrix", `!recorded.querySelector('.matrix').hidden`)
	// Other faults may have broken something at an earlier message: how many of
	// them were tried depends on the machine.
	const failing = `[...recorded.querySelectorAll('.matrix table button.broke')].find((c) => /kill.*broke/.test(c.getAttribute('aria-label')))`
	b.must("the failing cell of the recorded matrix has a sign and words", failing+`?.textContent === '✗'`)
	b.until("the view is drawn", `counter(recorded)`)
	b.eval(`button(recorded, 'Before the first message').click()`, nil)
	b.until("the first message is selected", `/^0 /.test(counter(recorded))`)
	// The matrix leads to the message before which the process was killed.
	b.eval(failing+`.click()`, nil)
	b.until("the matrix leads to a message", `!/^0 /.test(counter(recorded))`)
	b.must("it is that of the cell", `(() => {
		const at = `+failing+`.closest('tr').querySelector('th code').textContent;
		return recorded.querySelector('.about').textContent.includes(at) && recorded.querySelector('.outcome').textContent.includes(at);
	})()`)
	b.must("the fault is told there", `/killed/.test(recorded.querySelector('.about').textContent)`)
	for _, name := range []string{"Previous step", "Next step", "Next step"} {
		old := b.str(`counter(recorded)`)
		b.press("recorded", name, `counter(recorded) !== `+b.quote(old))
	}
}

// answer puts another text into the graded cell above the selected one, and runs it.
func (b *tab) answer(text string) {
	b.t.Helper()
	const editor = `document.querySelector('.jp-Notebook .jp-mod-active .cm-content')`
	b.run("go up", chromedp.KeyEvent(kb.ArrowUp))
	b.until("the graded cell is selected", editor+`.innerText.includes('func TestPlace')`)
	b.run("edit it", chromedp.KeyEvent(kb.Enter))
	b.until("it takes the focus", editor+`.contains(document.activeElement)`)
	b.run("select all", chromedp.KeyEvent("a", chromedp.KeyModifiers(ctrl)))
	b.eval(`(() => {
		const clipboardData = new DataTransfer();
		clipboardData.setData('text/plain', `+b.quote(text)+`);
		`+editor+`.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
	})()`, nil)
	b.must("the answer is in the cell, and nothing else", editor+`.innerText.trim().startsWith('%test') && !`+editor+`.innerText.includes('your code')`)
	b.runCell()
}

// status runs the last cell, which says how far the learner has come, and
// returns what it says of outbox/place.
func (b *tab) status() string {
	b.t.Helper()
	b.runUntil("crashcourse status")
	b.runCell()
	b.until("the status is told", `/outbox\/place/.test([...document.querySelectorAll('.jp-OutputArea-output')].at(-1)?.innerText)`)
	said := b.str(`[...document.querySelectorAll('.jp-OutputArea-output')].at(-1).innerText`)
	b.run("go back up", chromedp.KeyEvent(kb.ArrowUp))
	_, rest, _ := strings.Cut(said, "outbox/place")
	line, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	return line
}
