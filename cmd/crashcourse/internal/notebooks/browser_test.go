package notebooks

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"crashcourse/cmd/crashcourse/internal/jupyter"
	"crashcourse/cmd/crashcourse/internal/labserver"
	"crashcourse/cmd/crashcourse/internal/servers"
)

// The tests of the browser do what a learner does, in a real JupyterLab: step
// through the first notebook, answer a graded cell, export a page. They share a
// browser and a JupyterLab, for both take long to start.

// TestBrowser works in JupyterLab as a learner does, also under a base URL such
// as a hub gives.
func TestBrowser(t *testing.T) {
	if os.Getenv("CRASHCOURSE_BROWSER") == "" {
		t.Skip("this test drives a real browser: run it with `make test-browser` (it sets CRASHCOURSE_BROWSER=1)")
	}
	d := newDesk(t)
	t.Run("own address", func(t *testing.T) {
		d.serve(t, "/")
		t.Run("start here", func(t *testing.T) {
			b := d.open(t, "00_start_here", d.notebook(t, "00_start_here"))
			b.sub("recorded run", b.recordedRun)
			b.sub("step", b.stepThrough)
			b.sub("looks", b.looksOfStepping)
			b.sub("export", b.exported)
		})
		t.Run("graded cell", func(t *testing.T) {
			d.gradedCell(t)
		})
	})
	t.Run("below a hub", func(t *testing.T) {
		d.serve(t, "/user/somebody/")
		b := d.open(t, "00_start_here", d.shortened(t, "00_start_here", "setup", "hello", "step-hello"))
		b.sub("step", b.stepThrough)
	})
}

// desk is what the tests share.
type desk struct {
	lab     *lab
	chrome  context.Context // of the browser
	jupyter *jupyter.Lab
	dir     string // for copies of notebooks, below the course's own
	axe     string // the source of axe
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	path := chromium(t)
	d := &desk{lab: prepare(t)}
	d.axe = axeSource(t, d.lab)
	sessions, err := labserver.Start(t.Context(), d.lab.opt.State, jupyter.LabPath, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sessions.Stop(); err != nil {
			t.Error(err)
		}
	})
	d.lab.opt.LabPort, d.lab.opt.LabToken = sessions.Port(), sessions.At().Token
	if d.dir, err = os.MkdirTemp(filepath.Join(d.lab.opt.Root, "notebooks"), "browser_test_"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d.dir) })

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WindowSize(width, height), chromedp.NoSandbox)
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	d.chrome, cancel = chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	// The browser lives as long as the context of the first call.
	if err := chromedp.Run(d.chrome); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return d
}

// width and height are those of the window.
const width, height = 1400, 1000

// chromium finds a browser.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("this test needs Chromium: install it (Debian, Ubuntu: apt install chromium)")
	return ""
}

// serve starts JupyterLab, whose addresses begin with base, until t ends.
func (d *desk) serve(t *testing.T, base string) {
	t.Helper()
	d.lab.opt.BaseURL = base
	if err := jupyter.Prepare(t.Context(), d.lab.opt); err != nil {
		t.Fatal(err)
	}
	j, err := jupyter.Start(t.Context(), d.lab.opt, 0, servers.FreePort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Stop(); err != nil {
			t.Error(err)
		}
	})
	d.jupyter = j
}

// notebook is the text of one of the course's notebooks.
func (d *desk) notebook(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.lab.opt.Root, "notebooks", name+".ipynb"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// shortened is one of the course's notebooks with these cells alone, one that
// tells the progress, and an end.
func (d *desk) shortened(t *testing.T, name string, ids ...string) []byte {
	t.Helper()
	var nb map[string]any
	if err := json.Unmarshal(d.notebook(t, name), &nb); err != nil {
		t.Fatal(err)
	}
	var cells []any
	for _, c := range nb["cells"].([]any) {
		if slices.Contains(ids, c.(map[string]any)["id"].(string)) {
			cells = append(cells, c)
		}
	}
	if len(cells) != len(ids) {
		t.Fatalf("%s has not all of the cells %q", name, ids)
	}
	cells = append(cells,
		map[string]any{"cell_type": "code", "id": "status", "metadata": map[string]any{}, "source": "!crashcourse status", "outputs": []any{}, "execution_count": nil},
		map[string]any{"cell_type": "markdown", "id": "end", "metadata": map[string]any{}, "source": "The end."})
	nb["cells"] = cells
	text, err := json.Marshal(nb)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// open opens a notebook with that text in JupyterLab, in a tab of its own that
// closes when t ends. JupyterLab saves what it has open, so it is a copy.
func (d *desk) open(t *testing.T, name string, text []byte) *tab {
	t.Helper()
	file := filepath.Join(d.dir, name+".ipynb")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	b := d.tab(t)
	b.file = file
	at, err := url.Parse(d.jupyter.URL())
	if err != nil {
		t.Fatal(err)
	}
	base := strings.TrimSuffix(d.lab.opt.BaseURL, "/")
	at.Path = base + "/lab/workspaces/" + name + "/tree/notebooks/" + filepath.Base(d.dir) + "/" + name + ".ipynb"
	b.run("open the notebook", chromedp.Navigate(at.String()),
		chromedp.WaitVisible(".jp-NotebookPanel .jp-CodeCell .jp-InputPrompt", chromedp.ByQuery))
	b.run("select the first cell", chromedp.Click(".jp-Notebook .jp-Cell", chromedp.ByQuery))
	// One that runs a cell earlier is asked which kernel to take. (JupyterLab does
	// not call this kernel idle before its first cell.)
	b.until("the kernel is connected", `(() => {
		const r = new XMLHttpRequest();
		r.open('GET', '`+base+`/api/sessions', false);
		r.send();
		return JSON.parse(r.responseText).some((s) => s.path.endsWith('/`+name+`.ipynb') && s.kernel.connections > 0);
	})()`)
	return b
}

// tab is a page in the browser.
type tab struct {
	t    *testing.T
	desk *desk
	ctx  context.Context
	file string // the notebook

	mu       sync.Mutex
	abroad   []string // requests that left the machine
	problems []string // errors of scripts on the page
	frames   map[string]runtime.ExecutionContextID
}

// tab opens an empty page. When t ends, nothing may have gone wrong on it.
func (d *desk) tab(t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(d.chrome)
	b := &tab{t: t, desk: d, ctx: ctx, frames: map[string]runtime.ExecutionContextID{}}
	t.Cleanup(func() {
		cancel()
		b.check(t)
	})
	chromedp.ListenTarget(ctx, b.listen)
	if err := chromedp.Run(ctx, network.Enable(), runtime.Enable(), chromedp.EmulateViewport(width, height)); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	return b
}

func (b *tab) listen(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(ev.Request.URL)
		if err == nil && u.Host != "" && u.Hostname() != "127.0.0.1" && u.Hostname() != "localhost" {
			b.abroad = append(b.abroad, ev.Request.URL)
		}
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, ev.ExceptionDetails.Error())
	case *runtime.EventExecutionContextCreated:
		var of struct {
			Frame string `json:"frameId"`
			Main  bool   `json:"isDefault"`
		}
		if err := json.Unmarshal(ev.Context.AuxData, &of); err == nil && of.Main {
			b.frames[of.Frame] = ev.Context.ID
		}
	}
}

// check fails when something went wrong on the page, or a request left the machine.
func (b *tab) check(t *testing.T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.abroad) > 0 {
		t.Errorf("requests that left the machine: %q", b.abroad)
	}
	if len(b.problems) > 0 {
		t.Errorf("errors on the page: %q", b.problems)
	}
}

// sub runs a part of the test. What comes after it needs what it has done.
func (b *tab) sub(name string, f func()) {
	outer := b.t
	defer func() { b.t = outer }()
	ok := outer.Run(name, func(t *testing.T) {
		b.t = t
		f()
	})
	if !ok {
		outer.FailNow()
	}
}

const patience = 2 * time.Minute // something that takes longer hangs

func (b *tab) run(what string, actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// prelude is what the JavaScript of the tests finds: the shadow root of the
// newest live view and of the newest recorded one, and the newest report.
const prelude = `
	const root = (where) => where?.querySelector('.crashcourse-mounted')?.shadowRoot;
	const frame = [...document.querySelectorAll('iframe[title^="Live"]')].at(-1);
	const live = root(frame?.contentDocument);
	const recorded = [...document.querySelectorAll('.crashcourse-mounted')].at(-1)?.shadowRoot;
	const report = [...document.querySelectorAll('.jp-OutputArea-output .ccv[role=group]')].at(-1);
	const button = (root, name) => [...(root?.querySelectorAll('button') || [])].find((b) => b.textContent.trim() === name || b.getAttribute('aria-label') === name);
	const counter = (root) => root.querySelector('.counter').textContent;
	const steps = () => Number((counter(live).match(/\d+\s*$/) || ['0'])[0]);
	const waits = () => live.textContent.includes('Waits for you');
`

// eval evaluates JavaScript, and awaits what it promises.
func (b *tab) eval(js string, result any) {
	b.t.Helper()
	await := func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }
	b.run(js, chromedp.Evaluate(`(() => {`+prelude+`return (`+js+`); })()`, result, await))
}

// until waits until js is true.
func (b *tab) until(what, js string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for !b.is(js) {
		if time.Now().After(deadline) {
			b.capture("failure.png", nil)
			b.t.Fatalf("waited %v until %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// must fails unless js is true.
func (b *tab) must(what, js string) {
	b.t.Helper()
	if !b.is(js) {
		b.capture("failure.png", nil)
		b.t.Errorf("it does not hold that %s", what)
	}
}

// is tells whether js is true.
func (b *tab) is(js string) (yes bool) {
	b.t.Helper()
	b.eval(`!!(`+js+`)`, &yes)
	return yes
}

// str evaluates JavaScript to a text.
func (b *tab) str(js string) (s string) {
	b.t.Helper()
	b.eval(js, &s)
	return s
}

// quote is s in JavaScript.
func (b *tab) quote(s string) string {
	b.t.Helper()
	q, err := json.Marshal(s)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(q)
}

const (
	ctrl  = 2
	shift = 8
)

// runCell runs the selected cell and selects the next.
func (b *tab) runCell() {
	b.t.Helper()
	b.eval(`(() => {
		document.querySelector('[data-test-cell]')?.removeAttribute('data-test-cell');
		const cell = document.querySelector('.jp-Notebook .jp-mod-active');
		cell.setAttribute('data-test-cell', '');
		const prompt = () => cell.querySelector('.jp-InputPrompt')?.textContent;
		const before = prompt();
		window.hasRun = () => !cell.classList.contains('jp-CodeCell') || /\[\d+\]/.test(prompt()) && prompt() !== before;
		window.runs = () => window.hasRun() || prompt().includes('*');
	})()`, nil)
	b.run("run the cell", chromedp.KeyEvent(kb.Enter, chromedp.KeyModifiers(shift)))
	// JupyterLab drops a cell that is run while it still makes friends with a new
	// kernel. A person looks, and runs it once more.
	for deadline, again := time.Now().Add(patience), time.Now().Add(dropped); !b.is(`window.runs()`) && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(again) {
			again = time.Now().Add(dropped)
			b.t.Log("JupyterLab has dropped the cell: it is run once more")
			b.run("select the cell", chromedp.Click("[data-test-cell] .jp-InputPrompt", chromedp.ByQuery))
			b.run("run the cell", chromedp.KeyEvent(kb.Enter, chromedp.KeyModifiers(shift)))
		}
	}
	b.until("the cell has run", `window.hasRun()`)
}

// dropped is how long a cell may neither run nor wait until it counts as dropped.
const dropped = 5 * time.Second

// runUntil runs cells until one is selected that holds text.
func (b *tab) runUntil(text string) {
	b.t.Helper()
	for range 100 {
		if b.is(`document.querySelector('.jp-Notebook .jp-mod-active .cm-content')?.innerText.includes(` + b.quote(text) + `)`) {
			return
		}
		b.runCell()
	}
	b.t.Fatalf("no cell holds %q", text)
}

// press presses a button of a view (live, recorded) and waits until it has had
// its effect.
func (b *tab) press(view, name, effect string) {
	b.t.Helper()
	found := fmt.Sprintf("button(%s, %s)", view, b.quote(name))
	b.until(name+" can be pressed", found+` && `+found+`.getAttribute('aria-disabled') !== 'true'`)
	b.eval(found+`.click()`, nil)
	b.until(name+" has had its effect", effect)
}
