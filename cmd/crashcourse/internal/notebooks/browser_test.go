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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	cdruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"crashcourse/cmd/crashcourse/internal/jupyter"
	"crashcourse/cmd/crashcourse/internal/labserver"
	"crashcourse/cmd/crashcourse/internal/servers"
)

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

// browser is a tab with a notebook in a real JupyterLab.
type browser struct {
	t        *testing.T
	ctx      context.Context
	mu       sync.Mutex
	abroad   []string // requests that left the machine
	problems []string // errors of scripts on the page
}

// openNotebook opens a copy of a notebook in JupyterLab, whose addresses begin
// with base.
func openNotebook(t *testing.T, name, base string) *browser {
	t.Helper()
	path := chromium(t)
	l := prepare(t)
	sessions, err := labserver.Start(t.Context(), l.opt.State, jupyter.LabPath, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sessions.Stop(); err != nil {
			t.Error(err)
		}
	})
	l.opt.LabPort, l.opt.LabToken, l.opt.BaseURL = sessions.Port(), sessions.At().Token, base
	if err := jupyter.Prepare(t.Context(), l.opt); err != nil {
		t.Fatal(err)
	}
	j, err := jupyter.Start(t.Context(), l.opt, 0, servers.FreePort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Stop(); err != nil {
			t.Error(err)
		}
	})
	// JupyterLab saves what it has open: not over the course's own notebook.
	text, err := os.ReadFile(filepath.Join(l.opt.Root, "notebooks", name+".ipynb"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(filepath.Join(l.opt.Root, "notebooks"), "browser_test_")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, name+".ipynb"), text, 0o644); err != nil {
		t.Fatal(err)
	}

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WindowSize(1400, 1000), chromedp.NoSandbox)
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	// The browser lives as long as the context of the first call.
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	chromedp.ListenTarget(ctx, b.listen)
	at, err := url.Parse(j.URL())
	if err != nil {
		t.Fatal(err)
	}
	at.Path = strings.TrimSuffix(base, "/") + "/lab/workspaces/test/tree/notebooks/" + filepath.Base(dir) + "/" + name + ".ipynb"
	b.run("open the notebook", network.Enable(), cdruntime.Enable(), chromedp.Navigate(at.String()),
		chromedp.WaitVisible(".jp-NotebookPanel .jp-CodeCell .jp-InputPrompt", chromedp.ByQuery))
	b.run("select the first cell", chromedp.Click(".jp-Notebook .jp-Cell", chromedp.ByQuery))
	// One that runs a cell earlier is asked which kernel to take.
	b.until("the kernel is connected", `(() => { const r = new XMLHttpRequest(); r.open('GET', '`+strings.TrimSuffix(base, "/")+`/api/kernels', false); r.send(); return JSON.parse(r.responseText).some((k) => k.connections > 0); })()`)
	return b
}

func (b *browser) listen(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(ev.Request.URL)
		if err == nil && u.Host != "" && u.Hostname() != "127.0.0.1" && u.Hostname() != "localhost" {
			b.abroad = append(b.abroad, ev.Request.URL)
		}
	case *cdruntime.EventExceptionThrown:
		b.problems = append(b.problems, ev.ExceptionDetails.Error())
	}
}

func (b *browser) run(what string, actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Minute)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// eval evaluates JavaScript. live is the document of the live view under the
// cell in hand, recorded the shadow root of its recorded one.
func (b *browser) eval(js string, result any) {
	b.t.Helper()
	const prelude = `(() => {
		const cell = document.querySelector('.jp-Notebook .jp-mod-active') || document;
		const root = (where) => where && where.querySelector('.crashcourse-mounted')?.shadowRoot;
		const live = root([...document.querySelectorAll('iframe[title^="Live"]')].at(-1)?.contentDocument);
		const recorded = [...document.querySelectorAll('.crashcourse-mounted')].at(-1)?.shadowRoot;
		const button = (root, name) => [...(root?.querySelectorAll('button') || [])].find((b) => b.textContent.trim() === name || b.getAttribute('aria-label') === name);
		const steps = () => Number((live.querySelector('.counter').textContent.match(/\d+\s*$/) || ['0'])[0]);
		return (`
	b.run(js, chromedp.Evaluate(prelude+js+`); })()`, result))
}

// until waits until js is true.
func (b *browser) until(what, js string) {
	b.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		var ok bool
		b.eval(`!!(`+js+`)`, &ok)
		if ok {
			return
		}
		if time.Now().After(deadline) {
			if shot := os.Getenv("CRASHCOURSE_SHOTS"); shot != "" {
				b.shoot(filepath.Join(shot, "failure.png"))
			}
			b.t.Fatalf("waited a minute until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (b *browser) shoot(file string) {
	b.t.Helper()
	var png []byte
	b.run("take a picture", chromedp.CaptureScreenshot(&png))
	if err := os.WriteFile(file, png, 0o644); err != nil {
		b.t.Error(err)
	}
}

// runTo runs all cells up to the one that holds text.
func (b *browser) runTo(text string) {
	b.t.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		b.t.Fatal(err)
	}
	b.run("select the first cell", chromedp.Click(".jp-Notebook .jp-Cell", chromedp.ByQuery))
	for n := 0; ; n++ {
		var there bool
		b.eval(`document.querySelector('.jp-Notebook .jp-mod-active .cm-content')?.innerText.includes(`+string(quoted)+`)`, &there)
		b.run("run the cell", chromedp.KeyEvent("\r", chromedp.KeyModifiers(8))) // Shift-Enter
		b.until("the cell has run", `!document.querySelector('.jp-Notebook .jp-mod-running, .jp-Notebook .jp-InputPrompt[data-busy]') && ![...document.querySelectorAll('.jp-InputPrompt')].some((p) => p.textContent.includes('[*]'))`)
		if there {
			return
		}
		if n > 100 {
			b.t.Fatalf("no cell holds %q", text)
		}
	}
}

// press presses a button of the live view and waits until it has had its effect.
func (b *browser) press(name, effect string) {
	b.t.Helper()
	quoted := fmt.Sprintf("%q", name)
	b.until(name+" can be pressed", `button(live, `+quoted+`) && button(live, `+quoted+`).getAttribute('aria-disabled') !== 'true'`)
	b.eval(`button(live, `+quoted+`).click()`, nil)
	b.until(name+" has had its effect", effect)
}

func (b *browser) steps() (n int) {
	b.t.Helper()
	b.eval(`steps()`, &n)
	return n
}

func (b *browser) text() (s string) {
	b.t.Helper()
	b.eval(`live.textContent`, &s)
	return s
}

// check fails when something went wrong on the page, or a request left the machine.
func (b *browser) check() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.abroad) > 0 {
		b.t.Errorf("requests that left the machine: %q", b.abroad)
	}
	if len(b.problems) > 0 {
		b.t.Errorf("errors on the page: %q", b.problems)
	}
}

// TestBrowser steps through the first notebook as a learner does, also under a
// base URL such as a hub gives.
func TestBrowser(t *testing.T) {
	if os.Getenv("CRASHCOURSE_BROWSER") == "" {
		t.Skip("`make test-browser` runs this test")
	}
	for _, base := range []string{"/", "/user/somebody/"} {
		t.Run("base "+base, func(t *testing.T) {
			b := openNotebook(t, "00_start_here", base)
			b.runTo("l.Run(hello)")
			b.until("the recorded view is there", `recorded && recorded.querySelector('.counter')`)
			b.runTo("l.Step(")
			b.until("a message waits", `live && live.textContent.includes('Waits for you')`)
			const waits = `live.textContent.includes('Waits for you')`
			for range 4 {
				n := b.steps()
				b.press("Step", fmt.Sprintf(`steps() > %d && %s`, n, waits))
			}
			for range 30 {
				if strings.Contains(b.waiting(), "publish") {
					break
				}
				n := b.steps()
				b.press("Step", fmt.Sprintf(`steps() > %d && %s`, n, waits))
			}
			if shots := os.Getenv("CRASHCOURSE_SHOTS"); shots != "" && base == "/" {
				b.shoot(filepath.Join(shots, "step.png"))
			}
			if !strings.Contains(b.text(), "hello") {
				t.Error("the committed row does not show")
			}
			b.press("Crash", `live.textContent.includes('killed') && button(live, 'Restart').getAttribute('aria-disabled') !== 'true'`)
			b.press("Restart", waits)
			// The row is there already: the new process breaks on its key.
			for range 200 {
				var over bool
				b.eval(`!!(live.textContent.includes('duplicate key') || (button(live, 'Step')?.getAttribute('aria-disabled') !== 'true' && button(live, 'Step').click()))`, &over)
				if over {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			b.until("the new process has failed", `live.textContent.includes('duplicate key')`)
			b.check()
		})
	}
}

// waiting is the name of the message that waits.
func (b *browser) waiting() (s string) {
	b.t.Helper()
	b.eval(`[...live.querySelectorAll('circle.hand')].map((c) => c.closest('svg').querySelector('title')?.textContent || '').join(' ')`, &s)
	return s
}
