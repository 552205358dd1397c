package notebooks

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/chromedp/chromedp"

	"crashcourse/cmd/crashcourse/internal/jupyter"
)

// exported saves the notebook that was run, makes a page of it and opens that
// from a file: there the recorded runs can still be stepped through.
func (b *tab) exported() {
	b.run("save the notebook", chromedp.KeyEvent("s", chromedp.KeyModifiers(ctrl)))
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(b.file)
		if err != nil {
			b.t.Fatal(err)
		}
		if bytes.Contains(text, []byte("crashcourse-view")) {
			break
		}
		if time.Now().After(deadline) {
			b.t.Fatal("JupyterLab has not saved the notebook")
		}
	}
	l := b.desk.lab
	out := filepath.Join(l.tmp, "exported.html")
	// nbconvert's own frame would fetch require.js and MathJax; the notebook needs
	// neither.
	cmd := exec.CommandContext(b.t.Context(), l.opt.Python(), "-m", "nbconvert", "--to", "html", "--output", out,
		"--HTMLExporter.require_js_url=", "--HTMLExporter.mathjax_url=", b.file)
	cmd.Env = jupyter.Environ(l.opt, os.Environ())
	if said, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("export the notebook: %v\n%s", err, said)
	}

	page := b.desk.tab(b.t)
	page.run("open the page", chromedp.Navigate("file://"+out), chromedp.WaitReady(".crashcourse-mounted", chromedp.ByQuery))
	page.must("both recorded runs are there", `document.querySelectorAll('.crashcourse-mounted').length === 2`)
	page.press("recorded", "Before the first message", `/^0 /.test(counter(recorded))`)
	for range 3 {
		old := page.str(`counter(recorded)`)
		page.press("recorded", "Next step", `counter(recorded) !== `+page.quote(old))
	}
	page.must("the step is told and drawn", `/^3 /.test(counter(recorded)) && recorded.querySelectorAll('svg.row.msg').length > 3 && recorded.querySelector('.about').textContent.includes('Step 3')`)
	page.must("the live session is a link here", `!frame && [...document.querySelectorAll('.ccl p')].some((p) => !p.hidden && p.querySelector('a'))`)
}
