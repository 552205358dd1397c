package view

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"crashcourse/pkg/wire"
)

// diagram is a trace laid out as a sequence diagram: columns from left to right,
// rows from top to bottom. What draws it, as text, as SVG or in a browser, takes
// no decisions of its own about what is shown.
type diagram struct {
	Title   string
	Columns []column
	Rows    []row
	Lives   []life
	Spans   []transaction
	words   *words
}

// column is a lane: a server, or the processes that took each other's place.
type column struct {
	Head   string
	Server bool
}

type rowKind int

const (
	rowMessage rowKind = iota
	rowStart           // a process starts in the place of another
	rowFault           // a fault struck at the message above
	rowGap             // messages left out
	rowBroken          // an invariant was found broken
)

type row struct {
	Kind        rowKind
	Label       string
	Tag         string // of a publish: the number that its confirm will carry
	Title       string // more about a message: point, time, SQL
	From, To    int    // columns of a message; From also of a start
	Stopped     bool   // it never arrived
	Uncommitted bool   // a write in a transaction that is still open
	RolledBack  bool   // … and that never committed
	Commit      bool
	Answered    bool // the answer came next, and has no row of its own
	Back        bool // towards the process
	Process     int
	Seq         int
	Fault       string
	on          connection
}

// life is the time in which a process lived, as rows; row -1 is the head.
type life struct {
	Process, Column, From, To int
	Killed                    bool
}

type fate int

const (
	fateOpen fate = iota
	fateCommitted
	fateRolledBack
)

// transaction is a database transaction that wrote or was begun, as rows.
type transaction struct {
	From, To int
	Slot     int // beside others that were open at the same time, from 0
	Fate     fate
	on       connection
}

// entry is one message of the trace on its way to become a row.
type entry struct {
	at, end     int // the places in Trace.Messages that it stands for
	msg         wire.Message
	struck      string // the fault
	stopped     bool
	answered    bool
	uncommitted *txn
	commit      bool
	hidden      int // more messages that this entry stands for: it is a gap
	times       int // … which are a repetition
}

// txn is a transaction in places of the trace.
type txn struct {
	on          connection
	first, last int
	fate        fate
}

type connection struct {
	process  int
	protocol wire.Protocol
	conn     int
}

// newDiagram lays out t. Steps, and whatever a fault struck, become rows.
func newDiagram(t *wire.Trace, o TraceOptions, lim limits) *diagram {
	w := english()
	d := &diagram{Title: line(o.Title, lim.name), words: w}
	if d.Title == "" {
		d.Title = w.Diagram
	}
	steps := o.Steps
	if steps <= 0 {
		steps = lim.steps
	}

	entries := entriesOf(t, o)
	lanes := lanesOf(entries)
	spans := follow(entries, lanes)
	shown := window(foldRepeats(foldAnswers(entries)), steps)

	rowOf := d.addRows(shown, lanes, lim)
	if t.Dropped > 0 {
		d.Rows = append(d.Rows, row{Kind: rowGap, Label: w.Dropped.of(t.Dropped)})
	}
	if broken := line(o.Broken, lim.name); broken != "" {
		d.Rows = append(d.Rows, row{Kind: rowBroken, Label: fill(w.BrokenHere, "names", broken)})
	}
	d.addLives(entries, lanes, rowOf)
	d.addSpans(spans, rowOf)
	return d
}

// entriesOf picks the messages worth a row and marks those that never arrived.
func entriesOf(t *wire.Trace, o TraceOptions) []entry {
	if slices.ContainsFunc(t.Messages, func(m wire.Message) bool { return m.Fault != "" }) {
		o.Fault = "" // the trace knows better
	}
	anyStep := slices.ContainsFunc(t.Messages, func(m wire.Message) bool { return m.Step })
	silent := map[connection]wire.Direction{}
	dead := map[int]bool{}
	var out []entry
	for i, m := range t.Messages {
		e := entry{at: i, end: i, msg: m, struck: m.Fault}
		if e.struck == "" && o.Point != "" && o.Fault != "" && m.Step && m.Point.String() == o.Point {
			e.struck = o.Fault
		}
		conn := connection{m.Process, m.Protocol, m.Conn}
		e.stopped = dead[m.Process] || silent[conn] == m.Dir && m.Dir != ""
		switch e.struck {
		case "":
		case "kill", string(wire.Freeze):
			e.stopped, dead[m.Process] = true, true
		case string(wire.Blackhole):
			if e.stopped {
				e.struck = "" // said once, where it began
			}
			e.stopped, silent[conn] = true, m.Dir
		case string(wire.Duplicate), string(wire.Delay), string(wire.Hold), "expire":
		default:
			e.stopped = true
		}
		if m.Step || !anyStep || e.struck != "" {
			out = append(out, e)
		}
	}
	return out
}

// server is PostgreSQL, the broker or a service.
type server struct {
	protocol wire.Protocol
	service  string // its name
}

func serverOf(m wire.Message) server { return server{m.Protocol, m.Service} }

// lanes says which column each process and each server has.
type lanes struct {
	columns  []column
	server   map[server]int
	process  map[int]int
	previous map[int]int // the process whose place it took
	last     map[int]int // the place of its last message in the trace
	first    map[int]int
	crowded  map[int]bool // it shares the last column with others that live
	ends     map[int]int  // the number of the message after which it had ended, where that is known
}

// mostLanes is how many processes that live at the same time have a column each,
// and how many services.
const mostLanes = 8

// lanesOf gives a process the column of one that had ended before it started:
// a restart goes on where the crash left off.
func lanesOf(entries []entry) *lanes {
	w := english()
	l := &lanes{
		server: map[server]int{}, process: map[int]int{}, previous: map[int]int{},
		first: map[int]int{}, last: map[int]int{}, crowded: map[int]bool{},
	}
	var order []int
	uses := map[wire.Protocol]bool{}
	var services []server
	for _, e := range entries {
		p := e.msg.Process
		if _, ok := l.first[p]; !ok {
			l.first[p] = e.at
			order = append(order, p)
		}
		l.last[p] = e.at
		uses[e.msg.Protocol] = true
		if s := serverOf(e.msg); s.protocol == wire.HTTP && !slices.Contains(services, s) {
			services = append(services, s)
		}
	}
	if uses[wire.PG] {
		l.server[server{protocol: wire.PG}] = 0
		l.columns = append(l.columns, column{Head: w.PostgreSQL, Server: true})
	}
	var occupant []int // the process that has a column now
	base := len(l.columns)
	for _, p := range order {
		place := slices.IndexFunc(occupant, func(q int) bool { return l.last[q] < l.first[p] })
		switch {
		case place >= 0:
			l.previous[p] = occupant[place]
			occupant[place] = p
		case len(occupant) == mostLanes:
			place = mostLanes - 1
			l.crowded[p] = true
			l.columns[base+place].Head = w.MoreProcesses
		default:
			place = len(occupant)
			occupant = append(occupant, p)
			l.columns = append(l.columns, column{Head: fill(w.Process, "n", strconv.Itoa(p))})
		}
		l.process[p] = base + place
	}
	if uses[wire.AMQP] {
		l.server[server{protocol: wire.AMQP}] = len(l.columns)
		l.columns = append(l.columns, column{Head: w.RabbitMQ, Server: true})
	}
	for i, s := range services {
		if i >= mostLanes { // they share the last one
			l.server[s] = len(l.columns) - 1
			l.columns[len(l.columns)-1].Head = w.MoreServices
			continue
		}
		l.server[s] = len(l.columns)
		l.columns = append(l.columns, column{Head: line(cmp.Or(s.service, string(s.protocol)), roomy().word), Server: true})
	}
	return l
}

// follow tells which writes were not committed yet when they passed, and what
// became of their transactions.
func follow(entries []entry, l *lanes) []*txn {
	var all []*txn
	open := map[connection]*txn{}
	closed := map[connection]*txn{}
	end := func(c connection, at int, f fate) {
		if tx := open[c]; tx != nil {
			tx.last, tx.fate = at, f
			closed[c] = tx
			delete(open, c)
		}
	}
	begin := func(c connection, at int) *txn {
		tx := &txn{on: c, first: at, last: at}
		open[c] = tx
		all = append(all, tx)
		return tx
	}
	for i := range entries {
		e := &entries[i]
		m := e.msg
		c := connection{m.Process, m.Protocol, m.Conn}
		for o := range open {
			if last, ok := l.ends[o.process]; ok && last < m.Seq && i > 0 {
				end(o, entries[i-1].at, fateRolledBack)
			}
		}
		if before, ok := l.previous[m.Process]; ok && e.at == l.first[m.Process] {
			for o := range open {
				if o.process == before {
					end(o, l.last[before], fateRolledBack)
				}
			}
		}
		switch e.struck {
		case "kill", string(wire.Freeze):
			for o := range open {
				if o.process == m.Process {
					end(o, e.at, fateRolledBack)
				}
			}
		case string(wire.Cut), string(wire.Shutdown):
			end(c, e.at, fateRolledBack)
		}
		if e.stopped || m.Protocol != wire.PG {
			continue
		}
		if m.Dir == wire.ToClient {
			failed := m.Type == "ErrorResponse"
			switch {
			case strings.HasSuffix(m.Name, " rolled back"):
				if tx := closed[c]; tx != nil {
					tx.fate = fateRolledBack
				}
			case failed && open[c] != nil && !startedBy(entries, open[c].first):
				end(c, e.at, fateRolledBack)
			}
			continue
		}
		switch {
		case m.Effect == wire.Commit:
			e.commit = true
			if open[c] == nil {
				begin(c, e.at)
			}
			end(c, e.at, fateCommitted)
		case m.Effect == wire.Rollback:
			end(c, e.at, fateRolledBack)
		case begins(m.Name):
			if open[c] == nil {
				begin(c, e.at)
			}
		case m.Effect == wire.Write:
			if open[c] == nil {
				begin(c, e.at)
			}
			e.uncommitted = open[c]
		}
	}
	for c, tx := range open {
		tx.last = l.last[c.process]
		if _, ok := l.ends[c.process]; ok {
			tx.fate = fateRolledBack
		}
	}
	return all
}

func begins(name string) bool {
	name = strings.ToUpper(name)
	return strings.HasPrefix(name, "BEGIN") || strings.HasPrefix(name, "START TRANSACTION")
}

func startedBy(entries []entry, at int) bool {
	i, ok := slices.BinarySearchFunc(entries, at, func(e entry, at int) int { return cmp.Compare(e.at, at) })
	return ok && begins(entries[i].msg.Name)
}

// foldAnswers puts an answer that came right after its request into the
// request's row.
func foldAnswers(entries []entry) []entry {
	var out []entry
	for _, e := range entries {
		if n := len(out); n > 0 && answers(out[n-1], e) {
			out[n-1].answered, out[n-1].end = true, e.end
			continue
		}
		out = append(out, e)
	}
	return out
}

func answers(q, a entry) bool {
	if q.msg.Dir != wire.ToServer || a.msg.Dir != wire.ToClient || q.answered ||
		q.msg.Process != a.msg.Process || q.msg.Protocol != a.msg.Protocol ||
		q.msg.Conn != a.msg.Conn || q.msg.Channel != a.msg.Channel ||
		q.stopped || a.stopped || q.struck != "" || a.struck != "" {
		return false
	}
	name, done := strings.CutSuffix(a.msg.Name, " done")
	// A statement outside a transaction is kept by the Sync behind it, and
	// answered only then.
	synced := done && q.msg.Type == "Sync" && strings.HasSuffix(q.msg.Name, " "+name)
	return done && q.msg.Name == name || synced || a.msg.Name == q.msg.Name+"-ok"
}

const (
	longestCycle = 10 // messages in a cycle that is looked for
	worthFolding = 4  // messages that must vanish for it
)

// foldRepeats shows a cycle of messages that comes again and again, such as an
// idle poll, once.
func foldRepeats(entries []entry) []entry {
	keys := make([]string, len(entries))
	for i, e := range entries {
		m := e.msg
		keys[i] = fmt.Sprint(m.Process, m.Protocol, m.Conn, m.Dir, m.Name, e.answered, e.stopped)
		switch m.Effect {
		case wire.Publish, wire.Deliver, wire.Return, wire.Call:
			keys[i] = fmt.Sprint("once", i) // each is another message to people
		}
		if e.struck != "" {
			keys[i] = fmt.Sprint("once", i)
		}
	}
	var out []entry
	for i := 0; i < len(entries); {
		length, times := 0, 0
		for k := 1; k <= longestCycle && i+2*k <= len(entries); k++ {
			n := 1
			for j := i + k; j+k <= len(entries) && slices.Equal(keys[i:i+k], keys[j:j+k]); j += k {
				n++
			}
			if n >= 3 && (n-1)*k > max(worthFolding-1, length*(times-1)) {
				length, times = k, n
			}
		}
		if length == 0 {
			out = append(out, entries[i])
			i++
			continue
		}
		out = append(out, entries[i:i+length]...)
		next := i + length*times
		out = append(out, entry{
			at: entries[i+length].at, end: entries[next-1].end, msg: entries[i].msg,
			hidden: length * (times - 1), times: times - 1,
		})
		i = next
	}
	return out
}

// window keeps about most entries: the first and last, the first of each
// process, and those around what a fault struck.
func window(entries []entry, most int) []entry {
	if len(entries) <= most {
		return entries
	}
	far := make([]int, len(entries)) // how far from anything that matters
	for i := range far {
		far[i] = len(entries)
	}
	var struck bool
	for i, e := range entries {
		if e.struck != "" {
			struck, far[i] = true, 0
		} else if i > 0 {
			far[i] = far[i-1] + 1
		}
	}
	for i := len(far) - 2; i >= 0; i-- {
		far[i] = min(far[i], far[i+1]+1)
	}
	ends := 3
	if !struck {
		ends = most / 3
		for j := range entries {
			far[j] = j
		}
	}
	seen := map[int]bool{}
	for i, e := range entries {
		if i < ends || i >= len(entries)-ends {
			far[i] = 0
		}
		if p := e.msg.Process; !seen[p] && len(seen) < most/3 {
			seen[p] = true
			far[i] = 0
		}
	}
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(far[a], far[b]) })
	keep := make([]bool, len(entries))
	for _, i := range order[:most] {
		keep[i] = true
	}
	for i := range keep {
		// A gap takes as much room as the one message it would hide.
		if !keep[i] && (i == 0 || keep[i-1]) && (i == len(keep)-1 || keep[i+1]) {
			keep[i] = true
		}
		// "The same again" means nothing without what came before it.
		if keep[i] && entries[i].times > 0 && i > 0 && !keep[i-1] {
			keep[i] = false
		}
	}

	var out []entry
	for i, e := range entries {
		if keep[i] {
			out = append(out, e)
			continue
		}
		hides := e.hidden
		if e.times == 0 {
			hides++
			if e.answered {
				hides++
			}
		}
		if n := len(out); n > 0 && i > 0 && !keep[i-1] {
			out[n-1].hidden += hides
			out[n-1].end = e.end
			continue
		}
		out = append(out, entry{at: e.at, end: e.end, msg: e.msg, hidden: hides})
	}
	return out
}

// addRows makes rows and returns which of them stands for a place in the trace.
func (d *diagram) addRows(entries []entry, l *lanes, lim limits) func(at int) int {
	w := d.words
	d.Columns = l.columns
	type mark struct{ end, row int }
	var marks []mark
	started := map[int]bool{}
	for _, e := range entries {
		m := e.msg
		process := fill(w.Process, "n", strconv.Itoa(m.Process))
		if _, restart := l.previous[m.Process]; restart && e.hidden == 0 && !started[m.Process] {
			d.Rows = append(d.Rows, row{
				Kind: rowStart, From: l.process[m.Process], Process: m.Process,
				Label: fill(w.Restarted, "process", process),
			})
		}
		if e.hidden == 0 {
			started[m.Process] = true
		}
		marks = append(marks, mark{e.end, len(d.Rows)})
		if e.hidden > 0 {
			label := w.Gap.of(e.hidden)
			if e.times > 0 {
				label = w.Repeat.of(e.hidden/e.times, "times", strconv.Itoa(e.times))
			}
			d.Rows = append(d.Rows, row{Kind: rowGap, Label: label})
			continue
		}
		r := row{
			Kind: rowMessage, on: connection{m.Process, m.Protocol, m.Conn}, Label: label(m, lim), Tag: tag(m), Title: title(m, lim), Process: m.Process, Seq: m.Seq,
			From: l.process[m.Process], To: l.server[serverOf(m)],
			Stopped: e.stopped, Answered: e.answered, Commit: e.commit, Fault: e.struck,
			Uncommitted: e.uncommitted != nil,
			RolledBack:  e.uncommitted != nil && e.uncommitted.fate == fateRolledBack,
		}
		if m.Dir == wire.ToClient {
			r.From, r.To, r.Back = r.To, r.From, true
		}
		d.Rows = append(d.Rows, r)
		if e.struck != "" {
			what := w.FaultHere[e.struck]
			if what == "" {
				what = fill(w.FaultHereOther, "fault", line(e.struck, lim.word))
			}
			if e.struck == "kill" || e.struck == string(wire.Freeze) {
				what = process + " " + what
			}
			d.Rows = append(d.Rows, row{
				Kind: rowFault, Process: m.Process, From: l.process[m.Process], Fault: e.struck,
				Label: fill(w.AtPoint, "what", what, "point", m.Point.String()),
			})
		}
	}
	return func(at int) int {
		i, _ := slices.BinarySearchFunc(marks, at, func(m mark, at int) int { return cmp.Compare(m.end, at) })
		if i == len(marks) {
			return len(d.Rows) - 1
		}
		return marks[i].row
	}
}

func (d *diagram) addLives(entries []entry, l *lanes, rowOf func(int) int) {
	killed := map[int]int{}
	for i, r := range d.Rows {
		if r.Kind == rowFault && (r.Fault == "kill" || r.Fault == string(wire.Freeze)) {
			killed[r.Process] = i
		}
	}
	replaced := map[int]bool{}
	for _, p := range l.previous {
		replaced[p] = true
	}
	seen := map[int]bool{}
	for _, e := range entries {
		p := e.msg.Process
		if seen[p] || l.crowded[p] {
			continue
		}
		seen[p] = true
		v := life{Process: p, Column: l.process[p], From: -1, To: len(d.Rows)}
		if _, restart := l.previous[p]; restart {
			v.From = slices.IndexFunc(d.Rows, func(r row) bool { return r.Kind == rowStart && r.Process == p })
			if v.From < 0 {
				continue // it lived inside a gap
			}
		}
		if replaced[p] {
			v.To = rowOf(l.last[p])
		}
		if at, ok := killed[p]; ok {
			v.To, v.Killed = at, true
		}
		d.Lives = append(d.Lives, v)
	}
}

// mostSlots is how many transactions stand side by side.
const mostSlots = 5

// addSpans gives transactions that were open at the same time slots side by side.
func (d *diagram) addSpans(spans []*txn, rowOf func(int) int) {
	var until []int
	for _, s := range spans {
		tx := transaction{on: s.on, From: rowOf(s.first), To: rowOf(s.last), Fate: s.fate}
		if tx.From == tx.To && d.Rows[tx.From].Kind == rowGap {
			continue // all of it is hidden
		}
		if len(d.Spans) == 2*len(d.Rows) {
			break // hundreds of connections: the picture says nothing more
		}
		slot := slices.IndexFunc(until, func(row int) bool { return row < tx.From })
		if slot < 0 {
			slot = len(until)
			until = append(until, 0)
		}
		until[slot], tx.Slot = tx.To, min(slot, mostSlots-1)
		d.Spans = append(d.Spans, tx)
	}
}

// label is what stands on a message's arrow.
func label(m wire.Message, lim limits) string {
	s := line(m.Name, lim.name)
	if s == "" {
		s = line(m.Type, lim.name)
	}
	return s
}

// tag tells publishes of one name apart, by the number that people find again
// in the confirm.
func tag(m wire.Message) string {
	if m.Effect != wire.Publish || m.DeliveryTag == 0 {
		return ""
	}
	return " #" + strconv.FormatUint(m.DeliveryTag, 10)
}

// title is what more there is to say of a message.
func title(m wire.Message, lim limits) string {
	parts := []string{m.Point.String(), strconv.FormatFloat(m.Time.Seconds()*1000, 'f', 1, 64) + " ms"}
	if m.Detail != "" {
		parts = append(parts, m.Detail)
	}
	return line(strings.Join(parts, " · "), 2*lim.name)
}
