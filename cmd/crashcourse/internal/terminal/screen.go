package terminal

import (
	"slices"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"crashcourse/pkg/step"
)

// The least that something can be shown in.
const (
	leastWidth  = 20
	leastHeight = 5
	wideScreen  = 120 // from here on the tables stand beside the messages
	narrow      = 60  // below it names are short
	mostSays    = 3   // lines for what there is to say
)

// look is how a line looks. It never says what the line does not.
type look int

const (
	usual look = iota
	strong
	faint
	bad
	fresh
	altered
	waiting
	selected
)

func (l look) of(s string) string {
	st := lipgloss.NewStyle()
	switch l {
	case usual:
		return s
	case strong:
		st = st.Bold(true)
	case faint:
		st = st.Faint(true)
	case bad:
		st = st.Bold(true).Foreground(lipgloss.Red)
	case fresh:
		st = st.Foreground(lipgloss.Green)
	case altered, waiting:
		st = st.Foreground(lipgloss.Yellow)
	case selected:
		st = st.Reverse(true)
	}
	return st.Render(s)
}

// text is a line of the screen on its way there.
type text struct {
	s    string
	look look
}

// layout is how many lines and columns the parts of the screen have.
type layout struct {
	wide        bool
	list, pane  int // lines
	says        int // lines
	left, right int // columns
}

func (m *Model) layout() layout {
	l := layout{left: m.width, right: m.width, says: 1}
	rest := m.height - 3 // the head, what there is to say, the keys
	if m.height >= 14 {
		l.says = max(1, min(mostSays, len(wrap(m.says().s, m.width))))
	}
	more := l.says - 1
	if m.width >= wideScreen {
		l.wide = true
		l.left = m.width * 55 / 100
		l.right = m.width - l.left - 3
		l.list, l.pane = rest-more, rest-more
		return l
	}
	if rest < 7 {
		l.list = rest
		return l
	}
	l.list = rest / 2
	l.pane = rest - l.list - 1 - more // a line between them
	return l
}

// View implements [tea.Model].
func (m *Model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	return v
}

// screen draws height lines of at most width columns.
func (m *Model) screen() string {
	if m.width < leastWidth || m.height < leastHeight {
		return fit(tooSmall, m.width)
	}
	var lines []string
	add := func(t text) { lines = append(lines, t.look.of(pad(t.s, m.width))) }
	add(text{m.head(), strong})
	if m.help {
		for _, t := range m.helpLines(m.height - 2) {
			add(t)
		}
		add(text{keysLine([]hint{{"?", "back"}, {"q", "quit"}}, m.width), faint})
		return strings.Join(lines, "\n")
	}
	l := m.layout()
	list := m.listLines(l.left, l.list)
	pane := m.paneLines(l.right, l.pane)
	if l.wide {
		for i := range list {
			lines = append(lines, list[i].look.of(pad(list[i].s, l.left))+faint.of(" │ ")+pane[i].look.of(pad(pane[i].s, l.right)))
		}
	} else {
		for _, t := range list {
			add(t)
		}
		if l.pane > 0 {
			add(text{strings.Repeat("─", m.width), faint})
		}
		for _, t := range pane {
			add(t)
		}
	}
	says := m.says()
	parts := wrap(says.s, m.width)
	for i := range l.says {
		switch {
		case i >= len(parts):
			add(text{})
		case i == l.says-1: // what does not fit any more is cut there
			add(text{strings.Join(parts[i:], " "), says.look})
		default:
			add(text{parts[i], says.look})
		}
	}
	add(text{keysLine(m.hints(), m.width), faint})
	return strings.Join(lines, "\n")
}

// head is the first line: what is shown, and where in it.
func (m *Model) head() string {
	n := strconv.Itoa(len(m.list.Steps))
	where := fill(stepOf, "i", strconv.Itoa(m.at+1), "n", n)
	switch {
	case len(m.list.Steps) == 0:
		where = noSteps
	case m.at < 0:
		where = fill(stepZero, "n", n)
	}
	if m.overWhy != "" {
		where += ", " + overShort
	}
	room := m.width - ansi.StringWidth(where) - 2
	if room < 8 {
		return fit(where, m.width)
	}
	return pad(fit(m.list.Title, room), room+2) + where
}

// says is what stands above the keys: what the last key came to, or what the
// session waits for.
func (m *Model) says() text {
	if m.quitting {
		return text{closing, waiting}
	}
	if m.note != "" {
		return text{m.note, bad}
	}
	if m.live == nil {
		if m.overWhy != "" {
			return text{fill(over, "text", m.overWhy), waiting}
		}
		return text{}
	}
	if m.live.busy != "" {
		return text{fill(doing, "act", acts[m.live.busy]), waiting}
	}
	h := m.chosen()
	switch {
	case h != nil:
		s := m.tell(h.Message, waits)
		if more := len(m.live.pending) - 1; more > 0 {
			s += fill(waitsMore, "n", strconv.Itoa(more))
		}
		return text{s, waiting}
	case m.live.state == step.Crashed:
		return text{stateCrashed, bad}
	case m.live.state == step.Ended:
		return text{stateEnded, waiting}
	}
	return text{stateRunning, faint}
}

func (m *Model) hints() []hint {
	if m.live == nil {
		return looking
	}
	return stepping(m.live.state, m.chosen(), len(m.live.pending) > 1, m.dead())
}

// keysLine lists keys. Where room is short, those before the last two, which
// lead to all others and out, are left out.
func keysLine(all []hint, width int) string {
	for {
		var parts []string
		for _, h := range all {
			parts = append(parts, h.key+" "+h.does)
		}
		s := strings.Join(parts, "  ")
		if ansi.StringWidth(s) <= width || len(all) <= 2 {
			return s
		}
		n := len(all)
		all = append(append([]hint{}, all[:n-3]...), all[n-2:]...)
	}
}

// helpLines says what the keys do and what the signs mean.
func (m *Model) helpLines(height int) []text {
	keys := lookingHelp
	if m.live != nil {
		keys = steppingHelp
	}
	var out []text
	list := func(all []hint) {
		column := 12
		for _, h := range all {
			for i, l := range wrap(h.does, m.width-column) {
				key := ""
				if i == 0 {
					key = h.key
				}
				out = append(out, text{pad(key, column) + l, usual})
			}
		}
	}
	out = append(out, text{keysTitle, strong})
	list(keys)
	out = append(out, text{signsTitle, strong})
	list(signs)
	return scrolled(out, &m.helpDown, height)
}

// window makes exactly height lines.
func window(lines []text, height int) []text {
	for len(lines) < height {
		lines = append(lines, text{})
	}
	return slices.Clone(lines[:max(0, height)])
}

// fit cuts s to n columns.
func fit(s string, n int) string { return ansi.Truncate(s, max(0, n), "…") }

// pad makes s n columns wide.
func pad(s string, n int) string {
	s = fit(s, n)
	return s + strings.Repeat(" ", max(0, n-ansi.StringWidth(s)))
}

// wrap breaks s into lines of at most n columns.
func wrap(s string, n int) []string {
	if s == "" {
		return nil
	}
	return strings.Split(ansi.Wrap(s, max(8, n), ""), "\n")
}
