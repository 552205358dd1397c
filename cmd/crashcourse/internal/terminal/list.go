package terminal

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"crashcourse/pkg/step"
	"crashcourse/pkg/view"
	"crashcourse/pkg/wire"
)

// message is the one at a step.
func (m *Model) message(at int) wire.Message { return m.list.Rows[m.list.Steps[at]].Message }

// listLines draws the part of the list of messages that shows. Only that is
// drawn, however long the list is.
func (m *Model) listLines(width, height int) []text {
	rows := len(m.list.Rows)
	all := rows
	if m.live != nil {
		all += len(m.live.pending)
	}
	m.reveal(height, all)
	c := m.columns(width)
	var out []text
	for i := m.top; i < all && len(out) < height; i++ {
		if i < rows {
			out = append(out, m.row(m.list.Rows[i], c))
		} else {
			out = append(out, m.waitingRow(m.live.pending[i-rows], c))
		}
	}
	if all == 0 {
		nothing := noMessages
		if m.live != nil {
			nothing = noSteps
		}
		out = append(out, text{nothing, faint})
	}
	return window(out, height)
}

// reveal scrolls so that the selected message shows, with what happened at it
// and some of its surroundings.
func (m *Model) reveal(height, all int) {
	rows := len(m.list.Rows)
	first, last := 0, 0
	switch {
	case m.live != nil && m.live.now && all > rows:
		first, last = rows, rows
		if h := m.chosen(); h != nil {
			for i, p := range m.live.pending {
				if p.ID == h.ID {
					first, last = rows+i, rows+i
				}
			}
		}
	case m.at >= 0:
		first = m.list.Steps[m.at]
		last = first
		for last+1 < rows && m.list.Rows[last+1].Step == m.at && m.list.Rows[last+1].Kind != view.ListMessage {
			last++
		}
	}
	around := max(0, min(2, (height-1)/2))
	if m.top > first-around {
		m.top = first - around
	}
	if m.top < last+around-height+1 {
		m.top = min(last+around-height+1, first)
	}
	m.top = max(0, min(m.top, all-height))
}

// columns says how wide the parts of a row are.
type columns struct {
	width, number, process, server int
	short                          int // 1: words of few letters
	arrows                         [2]string
}

func (m *Model) columns(width int) columns {
	c := columns{width: width, number: len(strconv.Itoa(len(m.list.Steps))), server: 10, arrows: [2]string{" → ", " ← "}}
	most := 20
	if width < narrow {
		c.short, c.server, most, c.arrows = 1, 2, 9, [2]string{"→", "←"}
	}
	seen := map[string]bool{}
	widen := func(name string) {
		if !seen[name] {
			seen[name] = true
			c.process = min(most, max(c.process, ansi.StringWidth(name)))
		}
	}
	for _, i := range m.list.Steps {
		widen(m.list.Rows[i].Process)
	}
	if m.live != nil {
		for _, h := range m.live.pending {
			widen(m.list.Row(h.Message).Process)
		}
	}
	return c
}

func (m *Model) row(r view.ListRow, c columns) text {
	cursor, l := "  ", usual
	here := r.Step == m.at && r.Kind == view.ListMessage
	if here && !(m.live != nil && m.live.now && len(m.live.pending) > 0) {
		cursor, l = "▸ ", selected
	}
	if r.Kind != view.ListMessage {
		sign, l := "✗", bad
		switch r.Kind {
		case view.ListStart:
			sign, l = "○", strong
		case view.ListEnd:
			sign, l = "■", strong
		case view.ListGap:
			sign, l = " ", faint
		}
		return text{fit("  "+sign+" "+strings.Repeat(" ", c.number)+" "+r.Text, c.width), l}
	}
	sign, label := " ", ""
	if r.Effect {
		sign = "●"
	}
	if f, ok := fates[r.FateAfter(m.at)]; ok {
		label = f[c.short]
	}
	if r.Stopped {
		sign, label = "✗", [2]string{neverArrived, shortLost}[c.short]
	}
	if l == usual {
		switch {
		case r.Stopped:
			l = bad
		case r.Effect:
			l = strong
		case r.Message.Dir == wire.ToClient:
			l = faint
		}
	}
	return text{c.line(cursor+sign, strconv.Itoa(r.Step+1), r, label), l}
}

// waitingRow is a message that has not passed.
func (m *Model) waitingRow(h step.Held, c columns) text {
	cursor, label := "  ", otherWaits
	if chosen := m.chosen(); chosen != nil && chosen.ID == h.ID {
		label = nextWaits
		if m.live.now {
			cursor = "▸ "
		}
	}
	row, sign := m.list.Row(h.Message), " "
	if row.Effect {
		sign = "●"
	}
	return text{c.line(cursor+sign, "?", row, label), waiting}
}

// line puts a row of a message together.
func (c columns) line(mark, number string, r view.ListRow, label string) string {
	arrow := c.arrows[0]
	if r.Message.Dir == wire.ToClient {
		arrow = c.arrows[1]
	}
	server := pad(serverName(r.Message, c.short), c.server)
	head := mark + " " + strings.Repeat(" ", max(0, c.number-len(number))) + number + " " + pad(r.Process, c.process) + arrow + server + " "
	if c.short == 0 {
		head += " "
	}
	if label != "" {
		label = " " + label
	}
	return fit(head+pad(r.Text, c.width-ansi.StringWidth(head)-ansi.StringWidth(label))+label, c.width)
}

func serverName(m wire.Message, short int) string {
	if names, ok := servers[m.Protocol]; ok && names[short] != "" {
		return names[short]
	}
	return view.Line(cmp.Or(m.Service, string(m.Protocol)), 10)
}
