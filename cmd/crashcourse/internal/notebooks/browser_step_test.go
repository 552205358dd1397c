package notebooks

import (
	"slices"
	"strings"
	"time"
)

// recordedRun runs the first notebook up to a run that was killed, and sees it
// recorded.
func (b *tab) recordedRun() {
	b.runUntil("l.Run(hello, lab.Kill")
	b.runCell()
	b.until("the recorded view is there", `recorded && counter(recorded)`)
	b.must("it begins where the fault struck", `recorded.querySelector('.about').textContent.includes('killed')`)
	b.capture("recorded.png", frameOf(`recorded.host.closest('.crashcourse-view')`, 0))
}

// stepThrough steps through the work of the first notebook, then does what the
// notebook asks for: rewind, step until basic.publish waits, crash, start again.
// The row was committed and the event never sent, and the new process breaks on
// the row.
func (b *tab) stepThrough() {
	b.runUntil("l.Step(")
	// In the page, for only there one sees what a reader sees.
	b.eval(`void (window.ready = new Promise((done) => {
		let begin;
		addEventListener('keydown', () => { begin = performance.now(); }, { capture: true, once: true });
		const look = () => {
			const live = [...document.querySelectorAll('iframe[title^="Live"]')].at(-1)?.contentDocument?.querySelector('.crashcourse-mounted')?.shadowRoot;
			if (live?.querySelector('svg.row.wait')) done(performance.now() - begin);
			else requestAnimationFrame(look);
		};
		look();
	}))`, nil)
	b.runCell()
	var ready float64
	b.eval(`window.ready`, &ready)
	b.t.Logf("from running the cell to a message that waits: %v", ms(ready))

	// Once to the end: the event arrives.
	var took timings
	for !b.is(`/ended/.test(live.querySelector('.state').textContent)`) {
		b.step(&took)
	}
	b.until("the row and the message show", hasRow+` && `+hasMessage)

	b.press("live", "Before the first message", `/^0 /.test(counter(live))`)
	b.press("live", "Rewind to here", `waits() && steps() === 0 && `+noMessage)
	for !strings.Contains(b.waiting(), "publish") {
		b.step(&took)
	}
	b.must("the committed row shows, and no message", hasRow+` && `+noMessage)
	b.press("live", "Crash", `live.textContent.includes('killed') && button(live, 'Restart').getAttribute('aria-disabled') !== 'true'`)
	b.must("the crash leaves the row and no message", hasRow+` && `+noMessage)
	b.press("live", "Restart", `waits()`)
	b.eval(`void (frame.style.height = '500px')`, nil) // so few messages leave the rest of it empty
	b.capture("step.png", frameOf(`frame`, 0))
	b.eval(`void (frame.style.height = '660px')`, nil)
	for !b.is(`live.textContent.includes('duplicate key')`) {
		b.step(&took)
	}
	b.must("the event is lost", hasRow+` && `+noMessage)
	if n := len(took.next); n < 10 {
		b.t.Errorf("only %d steps", n)
	}
	b.t.Logf("%d steps; from the click until the message is drawn as passed: %s", len(took.passed), spread(took.passed))
	b.t.Logf("%d steps; from the click until the next message waits: %s", len(took.next), spread(took.next))
}

// What the live view says of the notebook's table and queue.
const (
	hasRow     = `[...live.querySelectorAll('.thing')].some((t) => t.textContent.includes('greetings') && t.textContent.includes('hello'))`
	hasMessage = `[...live.querySelectorAll('.thing')].some((t) => t.textContent.includes('mailbox') && t.textContent.includes('greeting.said'))`
	noMessage  = `[...live.querySelectorAll('.thing')].some((t) => t.textContent.includes('mailbox') && t.textContent.includes('empty'))`
)

// timings are in milliseconds, one for each step.
type timings struct{ passed, next []float64 }

// step presses Step and waits until the message has passed and another one
// waits, or none will.
func (b *tab) step(took *timings) {
	b.t.Helper()
	if len(took.next) > 100 {
		b.t.Fatalf("after %d steps there is no end in sight; now it is %s", len(took.next), b.waiting())
	}
	b.until("Step can be pressed", `button(live, 'Step').getAttribute('aria-disabled') !== 'true'`)
	var t struct{ Passed, Next float64 }
	b.eval(`new Promise((done, fail) => {
		const ids = () => [...live.querySelectorAll('svg.row.wait')].map((r) => r.pending).join();
		const old = ids(), count = steps(), begin = performance.now();
		let passed = 0;
		const look = () => {
			const now = performance.now() - begin;
			if (!passed && steps() > count) passed = now;
			const over = /All processes have ended|Crashed/.test(live.querySelector('.state').textContent);
			if (!passed || !over && (!ids() || ids() === old)) return;
			seen.disconnect();
			done({ Passed: passed, Next: now });
		};
		const seen = new MutationObserver(look);
		seen.observe(live, { subtree: true, childList: true, characterData: true, attributes: true });
		setTimeout(() => fail(new Error('nothing comes of the step')), 60000);
		button(live, 'Step').click();
	})`, &t)
	took.passed, took.next = append(took.passed, t.Passed), append(took.next, t.Next)
}

// waiting names the messages that wait.
func (b *tab) waiting() string {
	b.t.Helper()
	return b.str(`[...live.querySelectorAll('svg.row.wait title')].map((t) => t.textContent).join(' ')`)
}

func ms(n float64) time.Duration {
	return time.Duration(n * float64(time.Millisecond)).Round(100 * time.Microsecond)
}

func spread(all []float64) string {
	all = slices.Sorted(slices.Values(all))
	at := func(p int) string { return ms(all[(len(all)-1)*p/100]).String() }
	return "p50 " + at(50) + ", p95 " + at(95) + ", most " + at(100)
}
