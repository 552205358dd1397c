package notebooks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"crashcourse/cmd/crashcourse/internal/jupyter"
	"crashcourse/pkg/state"
)

// looksOfStepping looks at the views of the first notebook in both themes.
func (b *tab) looksOfStepping() {
	for _, theme := range themes {
		b.useTheme(theme)
		b.themed("recorded view", theme, `recorded.querySelector('.ccp')`)
		b.themed("live view", theme, `live.querySelector('.ccp')`)
		b.accessible("recorded view, "+theme.name, `recorded.host`)
		b.press("recorded", "Keys", `!recorded.querySelector('.help').hidden`)
		b.accessible("recorded view with its keys, "+theme.name, `recorded.host`)
		b.press("recorded", "Keys", `recorded.querySelector('.help').hidden`)
		b.accessibleLive("live page, " + theme.name)
	}
	b.useTheme(themes[0])
}

// theme is one of JupyterLab's.
type theme struct {
	name string
	dark bool
}

var themes = []theme{{"JupyterLab Light", false}, {"JupyterLab Dark", true}}

// useTheme switches JupyterLab's theme, through its command palette.
func (b *tab) useTheme(th theme) {
	b.t.Helper()
	name := b.quote(th.name)
	is := `document.body.dataset.jpThemeName === ` + name
	if b.is(is) {
		return
	}
	b.run("open the command palette", chromedp.KeyEvent("C", chromedp.KeyModifiers(ctrl|shift)),
		chromedp.WaitVisible(".jp-ModalCommandPalette input", chromedp.ByQuery),
		chromedp.SendKeys(".jp-ModalCommandPalette input", "use theme "+th.name, chromedp.ByQuery))
	item := `[...document.querySelectorAll('.jp-ModalCommandPalette .lm-CommandPalette-item')].find((i) => i.textContent.trim().endsWith(` + name + `))`
	b.until("the palette offers the theme", item)
	b.eval(item+`.click()`, nil)
	b.until("the theme is there", is)
}

// themed fails unless an element has JupyterLab's lightness, and its text is
// easy to read on it.
func (b *tab) themed(what string, th theme, element string) {
	b.t.Helper()
	var got struct{ Back, Text, Page string }
	b.until(what+" follows the theme", `(() => {
		const style = getComputedStyle(`+element+`);
		return (`+luminance+`)(style.backgroundColor) < 0.2 === `+fmt.Sprint(th.dark)+`;
	})()`)
	b.eval(`(() => {
		const el = `+element+`, style = getComputedStyle(el);
		return { Back: style.backgroundColor, Text: style.color, Page: getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor };
	})()`, &got)
	var lum [3]float64
	b.eval(`[`+b.quote(got.Back)+`, `+b.quote(got.Text)+`, `+b.quote(got.Page)+`].map(`+luminance+`)`, &lum)
	back, text, page := lum[0], lum[1], lum[2]
	b.t.Logf("%s, %s: %s on %s, in a page of %s", what, th.name, got.Text, got.Back, got.Page)
	if contrast := (math.Max(back, text) + 0.05) / (math.Min(back, text) + 0.05); contrast < 7 {
		b.t.Errorf("%s, %s: the contrast of its text is %.1f", what, th.name, contrast)
	}
	if math.Abs(back-page) > 0.1 {
		b.t.Errorf("%s, %s: it is %s in a page of %s", what, th.name, got.Back, got.Page)
	}
}

// luminance is that of WCAG, of a computed colour. What is transparent lets the
// light or the dark page through, which is of the other kind than the text.
const luminance = `(colour) => {
	const [r, g, b] = colour.match(/[\d.]+/g).map((n) => { const v = n / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
	return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}`

// axeHash is that of the axe.min.js of the package in testdata/axe.txt.
const axeHash = "84494fec757e4710dc751c8d7a636e457f4532f08f85c86dc9070133fbff53bc"

// axeSource installs axe, a checker of accessibility, into the state folder of
// the course, unless it is there.
func axeSource(t *testing.T, l *lab) string {
	t.Helper()
	dir, err := state.Dir()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "axe")
	file := filepath.Join(dir, "axe_playwright_python", "axe.min.js")
	read := func() (string, bool) {
		src, err := os.ReadFile(file)
		sum := sha256.Sum256(src)
		return string(src), err == nil && hex.EncodeToString(sum[:]) == axeHash
	}
	if src, ok := read(); ok {
		return src
	}
	list, err := filepath.Abs(filepath.Join("testdata", "axe.txt"))
	if err != nil {
		t.Fatal(err)
	}
	argv := []string{l.opt.Python(), "-m", "pip", "install", "--disable-pip-version-check"}
	if uv, err := exec.LookPath("uv"); err == nil { // it makes environments without pip
		argv = []string{uv, "pip", "install"}
	}
	argv = append(argv, "--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", dir, "--upgrade", "-r", list)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = jupyter.Environ(l.opt, os.Environ())
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install axe (the first time needs a network): %v\n%s", err, said)
	}
	src, ok := read()
	if !ok {
		t.Fatalf("%s is not the file that was expected", file)
	}
	return src
}

// accessible fails if axe finds fault with an element.
func (b *tab) accessible(what, element string) {
	b.t.Helper()
	b.axe(what, 0, element)
}

// accessibleLive fails if axe finds fault with the page of the live view.
func (b *tab) accessibleLive(what string) {
	b.t.Helper()
	var frame string
	b.run("find the live page", chromedp.ActionFunc(func(ctx context.Context) error {
		tree, err := page.GetFrameTree().Do(ctx)
		if err != nil {
			return err
		}
		for _, f := range tree.ChildFrames {
			if strings.Contains(f.Frame.URL, jupyter.LabPath) {
				frame = string(f.Frame.ID)
			}
		}
		return nil
	}))
	b.mu.Lock()
	id, ok := b.frames[frame]
	b.mu.Unlock()
	if !ok {
		b.t.Fatalf("no page of the live view")
	}
	b.axe(what, id, `document`)
}

// axe runs axe in a frame of the page; 0 is the page itself.
func (b *tab) axe(what string, id runtime.ExecutionContextID, element string) {
	b.t.Helper()
	in := func(p *runtime.EvaluateParams) *runtime.EvaluateParams {
		if id != 0 {
			p = p.WithContextID(id)
		}
		return p.WithAwaitPromise(true)
	}
	var there bool
	b.run("look for axe", chromedp.Evaluate(`typeof axe !== 'undefined'`, &there, in))
	if !there {
		b.run("load axe", chromedp.Evaluate(b.desk.axe+"\n;undefined", nil, in))
	}
	var found struct {
		Faults []string
		Passes int
	}
	b.run("run axe", chromedp.Evaluate(`(async () => {`+prelude+`
		const r = await axe.run(`+element+`, { resultTypes: ['violations'] });
		return {
			Passes: r.passes.length,
			Faults: r.violations.flatMap((v) => v.nodes.map((n) => v.id + ': ' + n.target.flat().join(' ') + ': ' + n.failureSummary)),
		};
	})()`, &found, in))
	for _, f := range found.Faults {
		b.t.Errorf("%s: %s", what, f)
	}
	if found.Passes < 5 {
		b.t.Errorf("%s: axe has checked next to nothing", what)
	}
}

// mostPicture is the most bytes of a picture: they go into the README.
const mostPicture = 200_000

// cut finds the part of the page to be captured.
type cut func(b *tab) *page.Viewport

// frameOf is the frame around an element, which is brought into sight, with a
// margin at three sides: above it stands something else.
func frameOf(element string, margin float64) cut {
	return func(b *tab) *page.Viewport {
		var box struct{ X, Y, Width, Height float64 }
		// A tall window shows what the notebook would scroll, and in a wide one a
		// view is as wide as it gets.
		b.run("make the window large", chromedp.EmulateViewport(1600, 2*height))
		b.eval(`new Promise((done) => {
			const el = `+element+`;
			el.scrollIntoView({ block: 'start' });
			requestAnimationFrame(() => requestAnimationFrame(() => {
				const r = el.getBoundingClientRect();
				done({ X: r.x, Y: r.y, Width: r.width, Height: r.height });
			}));
		})`, &box)
		return &page.Viewport{X: box.X - margin, Y: box.Y, Width: box.Width + 2*margin, Height: box.Height + margin, Scale: 1}
	}
}

// capture makes a picture when CRASHCOURSE_SHOTS names a folder for it.
func (b *tab) capture(name string, where cut) {
	b.t.Helper()
	dir := os.Getenv("CRASHCOURSE_SHOTS")
	if dir == "" {
		return
	}
	shot := page.CaptureScreenshot()
	if where != nil {
		shot = shot.WithClip(where(b))
		defer b.run("make the window as it was", chromedp.EmulateViewport(width, height))
	}
	var png []byte
	b.run("take a picture", chromedp.ActionFunc(func(ctx context.Context) (err error) {
		png, err = shot.Do(ctx)
		return err
	}))
	if err := os.WriteFile(filepath.Join(dir, name), png, 0o644); err != nil {
		b.t.Error(err)
	}
	if where != nil && len(png) > mostPicture {
		b.t.Errorf("%s has %d bytes, more than %d", name, len(png), mostPicture)
	}
}
