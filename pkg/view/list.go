package view

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"

	"crashcourse/pkg/wire"
)

// List is a recording laid out as a list, from top to bottom, for whoever shows
// it a line a message. All texts are printable and of one line.
type List struct {
	Title string
	Rows  []ListRow
	Steps []int // the places in Rows of the messages

	names map[int]string // of processes
}

// ListKind is the kind of a [ListRow].
type ListKind int

// The kinds of rows.
const (
	ListMessage ListKind = iota
	ListFault            // a fault struck at the message above
	ListStart            // a process starts
	ListEnd              // a process has ended
	ListBroken           // an invariant broke here
	ListGap              // messages that were not recorded
)

// ListRow is a message, or what happened between two.
type ListRow struct {
	Kind    ListKind
	Step    int    // a place in [List.Steps]: of the message, or of the last one before; -1: there is none
	Text    string // the message's name, or what happened
	Process string // a message: whose it is
	Stopped bool   // a message: it never arrived
	Effect  bool   // a message: it changes what outlives the process, or asks the server to
	Fate    Fate   // a message that writes: what became of it
	FateAt  int    // … and the step at which that was certain
	Message wire.Message
	Broken  Broken
}

// Fate is what became of a write.
type Fate int

// The fates.
const (
	FateNone       Fate = iota // it is no write, or never arrived
	FateOpen                   // its transaction was still open at the end
	FateCommitted              // it was kept
	FateRolledBack             // it was dropped
)

// FateAfter returns what had become of a write after a step.
func (r ListRow) FateAfter(step int) Fate {
	switch {
	case r.Fate == FateNone || r.Step > step:
		return FateNone
	case r.FateAt > step:
		return FateOpen
	}
	return r.Fate
}

// effects are those that act; the others only tell of it.
var effects = []wire.Effect{wire.Write, wire.Commit, wire.Rollback, wire.Publish, wire.Ack, wire.Call}

var endsTransaction = regexp.MustCompile(`(?i)^(COMMIT|END|sync)`)

// NewList lays out a recording.
func NewList(r Recording) List {
	w := english()
	lim := roomy()
	l := List{Title: line(r.Title, 200), names: namesOf(r.Lives)}
	entries := entriesOf(&r.Trace, TraceOptions{})
	lanes := lanesOf(entries)
	lanes.ends = endsOf(r.Lives)
	follow(entries, lanes)
	between := l.between(r, entries)
	put := func(step int) {
		for len(between) > 0 && (step == len(entries)-1 || between[0].after < entries[step+1].msg.Seq) {
			row := between[0].row
			row.Step = step
			l.Rows = append(l.Rows, row)
			between = between[1:]
		}
	}
	stepOf := make(map[int]int, len(entries)) // by the place in the trace
	for i, e := range entries {
		stepOf[e.at] = i
	}
	wrote := map[*txn]bool{}
	put(-1)
	for i, e := range entries {
		row := l.Row(e.msg)
		row.Step, row.Stopped = i, e.stopped
		switch tx := e.uncommitted; {
		case tx != nil:
			wrote[tx] = true
			row.Fate, row.FateAt = Fate(tx.fate)+FateOpen, stepOf[tx.last]
			if tx.fate == fateOpen {
				row.FateAt = len(entries)
			}
		case e.commit && !endsTransaction.MatchString(e.msg.Name) && !begins(e.msg.Name):
			row.Fate, row.FateAt = FateCommitted, i // a statement that is its own transaction
		}
		if before, ok := lanes.previous[e.msg.Process]; ok && len(r.Lives) == 0 && lanes.first[e.msg.Process] == e.at {
			l.Rows = append(l.Rows, ListRow{Kind: ListStart, Step: i - 1, Text: fill(w.StartsFor, "name", l.process(e.msg.Process), "before", l.process(before))})
		}
		l.Steps = append(l.Steps, len(l.Rows))
		l.Rows = append(l.Rows, row)
		if e.struck != "" {
			what, ok := w.FaultHere[e.struck]
			if !ok {
				what = fill(w.FaultHereOther, "fault", line(e.struck, lim.word))
			}
			l.Rows = append(l.Rows, ListRow{Kind: ListFault, Step: i, Text: fill(w.AtPoint, "what", what, "point", e.msg.Point.String()), Message: e.msg})
		}
		put(i)
	}
	if r.Trace.Dropped > 0 {
		l.Rows = append(l.Rows, ListRow{Kind: ListGap, Step: len(entries) - 1, Text: w.Dropped.of(r.Trace.Dropped)})
	}
	return l
}

// Row makes a row of a message that has not passed yet. Publishes of one name are
// told apart by a number, which is found again in the confirm.
func (l List) Row(m wire.Message) ListRow {
	text := line(cmp.Or(m.Name, m.Type), roomy().name)
	if m.Effect == wire.Publish && m.DeliveryTag > 0 {
		text += " #" + strconv.FormatUint(m.DeliveryTag, 10)
	}
	return ListRow{Text: text, Process: l.process(m.Process), Effect: slices.Contains(effects, m.Effect), Message: m}
}

func (l List) process(n int) string {
	if name, ok := l.names[n]; ok {
		return name
	}
	return fill(english().Process, "n", strconv.Itoa(n))
}

// namesOf gives each process the name of its work. Where several do the same
// work at the same time they are numbered.
func namesOf(lives []Life) map[int]string {
	w := english()
	slots := map[string][]int{} // by the name of the work
	for _, life := range lives {
		if life.Work != "" && !slices.Contains(slots[life.Work], life.Slot) {
			slots[life.Work] = append(slots[life.Work], life.Slot)
		}
	}
	names := map[int]string{}
	for _, life := range lives {
		if life.Work == "" {
			continue
		}
		name := line(life.Work, roomy().word)
		if twins := slots[life.Work]; len(twins) > 1 {
			name = fill(w.Twin, "name", name, "n", strconv.Itoa(slices.Index(twins, life.Slot)+1))
		}
		names[life.Process] = name
	}
	return names
}

// endsOf tells after which message each process that has ended had ended.
func endsOf(lives []Life) map[int]int {
	ends := map[int]int{}
	for _, life := range lives {
		if life.End != "" {
			ends[life.Process] = max(life.From, life.To)
		}
	}
	return ends
}

// happening is a row that belongs after a message.
type happening struct {
	after int // the message's number
	rank  int // of those at the same place
	row   ListRow
}

// between lists what happened between messages, in its order.
func (l List) between(r Recording, entries []entry) []happening {
	w := english()
	killed := map[int]bool{}
	for _, e := range entries {
		if e.struck == "kill" || e.struck == string(wire.Freeze) {
			killed[e.msg.Process] = true
		}
	}
	var all []happening
	again := map[int]bool{}
	for _, life := range r.Lives {
		switch {
		case again[life.Slot]:
			all = append(all, happening{life.From, 2, ListRow{Kind: ListStart, Text: fill(w.StartsAgain, "name", l.process(life.Process))}})
		case life.From > 0:
			all = append(all, happening{life.From, 2, ListRow{Kind: ListStart, Text: fill(w.Starts, "name", l.process(life.Process))}})
		}
		again[life.Slot] = true
		if life.End != "" && !killed[life.Process] { // else the fault says it
			all = append(all, happening{max(life.From, life.To), 0, ListRow{Kind: ListEnd,
				Text: fill(w.Ends, "name", l.process(life.Process), "end", line(life.End, roomy().sentence))}})
		}
	}
	for _, b := range r.Broken {
		b.Invariant, b.Says, b.Detail = line(b.Invariant, roomy().name), line(b.Says, roomy().sentence), line(b.Detail, roomy().sentence)
		all = append(all, happening{b.After, 1, ListRow{Kind: ListBroken, Text: fill(w.BrokeHere, "name", b.Invariant), Broken: b}})
	}
	slices.SortStableFunc(all, func(a, b happening) int { return cmp.Or(cmp.Compare(a.after, b.after), cmp.Compare(a.rank, b.rank)) })
	return all
}

// Line makes one printable line of s, of at most most characters: nothing in it
// moves a cursor, turns the direction of text or hides.
func Line(s string, most int) string { return line(s, most) }
