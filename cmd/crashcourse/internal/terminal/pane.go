package terminal

import (
	"slices"
	"strconv"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"crashcourse/pkg/view"
	"crashcourse/pkg/wire"
)

// paneLines tells of the selected message, and shows the tables and queues after
// it.
func (m *Model) paneLines(width, height int) []text {
	if height <= 0 {
		return nil
	}
	about := m.about(width)
	things, touched := m.things(width)
	if len(about)+len(things) < height {
		about = append(about, text{})
	}
	all := append(about, things...)
	if m.moved { // what has changed is to be seen
		m.moved = false
		m.down = 0
		if touched >= 0 && len(about)+touched >= height-1 {
			m.down = min(len(about)+touched, len(all)-height)
		}
	}
	return scrolled(all, &m.down, height)
}

// scrolled makes height lines of all, from down on, and says how many are below.
// What down is too much it takes off.
func scrolled(all []text, down *int, height int) []text {
	*down = max(0, min(*down, len(all)-height))
	out := window(all[*down:], height)
	if below := len(all) - *down - height; below > 0 {
		out[height-1] = text{fill(morePane, "n", strconv.Itoa(below+1)), faint}
	}
	return out
}

// about says the selected message in sentences.
func (m *Model) about(width int) []text {
	var out []text
	say := func(s string, l look) {
		for _, part := range wrap(s, width) {
			out = append(out, text{part, l})
		}
	}
	if m.at < 0 {
		say(nothingSent, strong)
	} else {
		row := m.list.Rows[m.list.Steps[m.at]]
		say(strings.Join(append([]string{m.tell(row.Message, m.how(row))}, m.writes()...), " "), strong)
		if d := view.Line(row.Message.Detail, 400); d != "" && strings.TrimSuffix(d, ";") != strings.TrimSuffix(row.Text, " done") {
			lines := wrap(d, width)
			if len(lines) > 2 {
				lines = lines[:2]
				lines[1] = fit(lines[1], width-2) + " …"
			}
			for _, l := range lines {
				out = append(out, text{l, faint})
			}
		}
	}
	for _, r := range m.list.Rows[m.from():] {
		if r.Step > m.at {
			break
		}
		switch {
		case r.Step != m.at:
		case r.Kind == view.ListEnd: // it may have printed much
			say(r.Text+".", usual)
		case r.Kind == view.ListFault:
			say(fill(faultHere, "what", r.Text), bad)
		case r.Kind == view.ListBroken:
			say(strings.Join(compact(r.Text, r.Broken.Says, r.Broken.Detail), ": ")+".", bad)
		}
	}
	return out
}

// from is the first row that can be of the selected step.
func (m *Model) from() int {
	if m.at < 0 {
		return 0
	}
	return m.list.Steps[m.at]
}

func compact(all ...string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// how a message is told.
func (m *Model) how(r view.ListRow) string {
	msg := r.Message
	switch {
	case r.Stopped:
		return lost
	case msg.Dir == wire.ToClient && (msg.Effect == wire.Done || msg.Effect == wire.Confirm || strings.HasSuffix(msg.Name, " done") || strings.HasSuffix(msg.Name, "-ok")):
		return answers
	}
	return sends
}

// tell says a message in a sentence.
func (m *Model) tell(msg wire.Message, how string) string {
	row := m.list.Row(msg)
	from, to := row.Process, serverName(msg, 0)
	if msg.Dir == wire.ToClient {
		from, to = to, from
	}
	return fill(how, "from", from, "to", to, "message", row.Text)
}

// writes says what the selected step has decided, and what is undecided.
func (m *Model) writes() (out []string) {
	var open, kept, dropped int
	for _, r := range m.list.Rows {
		if r.Step > m.at {
			break
		}
		switch f := r.FateAfter(m.at); {
		case f == view.FateOpen:
			open++
		case f == view.FateCommitted && r.FateAt == m.at:
			kept++
		case f == view.FateRolledBack && r.FateAt == m.at:
			dropped++
		}
	}
	for _, c := range []struct {
		n    int
		text plural
	}{{kept, keptSay}, {dropped, droppedSay}, {open, openSay}} {
		if c.n > 0 {
			out = append(out, c.text.of(c.n))
		}
	}
	return out
}

// things draws the tables and queues. The second result is the line of the first
// that has changed; -1: none has.
func (m *Model) things(width int) (out []text, touched int) {
	touched = -1
	now := m.scene(m.at)
	before := now
	if m.at >= 0 {
		before = m.scene(m.at - 1)
	}
	if now == nil {
		s := noScenes
		if m.live != nil || len(m.rec.Scenes) > 0 {
			s = noSceneYet
		}
		for _, l := range wrap(s, width) {
			out = append(out, text{l, faint})
		}
		return out, touched
	}
	if len(now.Things) == 0 {
		return []text{{noThings, faint}}, touched
	}
	for _, d := range view.Compare(before, now) {
		if d.Touched() && touched < 0 {
			touched = len(out)
		}
		out = append(out, thing(d, width)...)
	}
	return out, touched
}

// scene is what was seen after a step; nil: nothing yet.
func (m *Model) scene(at int) *view.Scene {
	next := 0
	if at+1 < len(m.list.Steps) {
		next = m.message(at + 1).Seq
	}
	if i := m.rec.SceneAt(next); i >= 0 {
		return &m.rec.Scenes[i]
	}
	return nil
}

// thing draws a table or a queue.
func thing(d view.Diff, width int) []text {
	count, n := rowsSay, len(d.Rows)+d.More
	if d.Kind == "queue" {
		count = messagesIn
	}
	head := "[" + view.Line(d.Kind, 10) + "] " + view.Line(d.Name, 60) + ": "
	if n == 0 {
		head += emptyThing
	} else {
		head += count.of(n)
	}
	for _, c := range []struct {
		n    int
		mark view.Mark
	}{{d.News, view.New}, {d.ChangedCount, view.Changed}, {d.GoneCount, view.Gone}} {
		if c.n > 0 {
			head += ", " + marks[c.mark][0] + strconv.Itoa(c.n) + " " + marks[c.mark][1]
		}
	}
	if note := view.Line(d.Note, 120); note != "" {
		head += " (" + note + ")"
	}
	out := []text{{fit(head, width), strong}}
	if len(d.Marked) == 0 {
		return out
	}
	cells := [][]string{clean(d.Columns)}
	for _, r := range d.Marked {
		cells = append(cells, clean(r.Cells))
	}
	widths := share(cells, width-2)
	for i, row := range cells {
		mark, l := " ", faint
		if i > 0 {
			kind := d.Marked[i-1].Mark
			mark, l = marks[kind][0], map[view.Mark]look{view.New: fresh, view.Changed: altered, view.Gone: bad}[kind]
		}
		s := mark + " "
		for c, v := range row {
			if c >= len(widths) {
				break
			}
			s += pad(v, widths[c]) + "  "
		}
		out = append(out, text{fit(strings.TrimRight(s, " "), width), l})
	}
	if d.More > 0 && len(d.Rows) > 0 {
		out = append(out, text{"  " + fill(moreRows, "n", strconv.Itoa(d.More)), faint})
	}
	return out
}

func clean(row []string) []string {
	out := make([]string, len(row))
	for i, v := range row {
		out[i] = view.Line(v, 120)
	}
	return out
}

// share gives each column what it needs, as far as there is room: the widest
// give way.
func share(rows [][]string, width int) []int {
	var widths []int
	for _, r := range rows {
		for c, v := range r {
			if c == len(widths) {
				widths = append(widths, 1)
			}
			widths[c] = max(widths[c], min(40, ansi.StringWidth(v)))
		}
	}
	const least = 4
	for over := total(widths) - width; over > 0; over-- {
		widest := 0
		for c, w := range widths {
			if w > widths[widest] {
				widest = c
			}
		}
		if widths[widest] <= least {
			break
		}
		widths[widest]--
	}
	return widths
}

// total is the width of a row with two blanks between its columns.
func total(widths []int) int {
	n := -2
	for _, w := range widths {
		n += w + 2
	}
	return n
}
