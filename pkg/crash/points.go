package crash

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"crashcourse/pkg/wire"
)

// Mode says how much a judge tries.
type Mode string

// The modes.
const (
	Quick    Mode = "quick"    // one point for each state a crash of a single process can leave behind, and a few of each kind of step
	Full     Mode = "full"     // every step that acts or answers, and a second crash during each recovery
	Unpruned Mode = "unpruned" // every step with every fault, nothing inferred
)

// candidate is a point worth a fault.
type candidate struct {
	Strike
	rank    int  // lower is tried earlier
	patient bool // wait out the answer's timers after it
}

// step is a message of a trace with what matters for choosing points.
type step struct {
	wire.Message
	acts bool // it changes what outlives the process
	nth  int  // among those of its name, protocol and direction

	amid bool // a publish with others before and behind it, before any of their confirms
}

// kindOf names what a message has in common with others like it. The names of
// AMQP messages carry tags and routing keys, so there it is the type; those of
// PostgreSQL may carry numbers, as savepoints do, and paths may carry IDs.
func kindOf(m *wire.Message) string {
	switch m.Protocol {
	case wire.AMQP:
		return m.Type
	case wire.HTTP:
		return numbers.ReplaceAllString(m.Name, "/…")
	}
	return strings.TrimRight(m.Name, "0123456789")
}

// numbers matches the segments of a path that differ from run to run.
var numbers = regexp.MustCompile(`/[^/ ]*[0-9][^/ ]*`)

// stepsOf picks the steps of the trace's first n messages that belong to the
// processes from..to.
func stepsOf(t wire.Trace, n, from, to int) []step {
	type connection struct {
		process  int
		protocol wire.Protocol
		conn     int
	}
	type sort struct {
		process  int
		protocol wire.Protocol
		dir      wire.Direction
		name     string
	}
	dirty := map[connection]bool{}
	open := map[connection][]int{} // where in out the publishes are whose confirms have not come
	seen := map[sort]int{}
	var out []step
	for _, m := range t.Messages[:min(n, len(t.Messages))] {
		if m.Process < from || m.Process > to {
			continue
		}
		c := connection{m.Process, m.Protocol, m.Conn}
		s := step{Message: m}
		if m.Dir == wire.ToServer {
			switch m.Effect {
			case wire.Write:
				dirty[c] = true
			case wire.Commit:
				// A Query that commits itself is its own write.
				s.acts = dirty[c] || m.Type == "Query" && m.Name != "COMMIT"
				dirty[c] = false
			case wire.Rollback:
				dirty[c] = false
			case wire.Publish, wire.Ack, wire.Call:
				s.acts = true
			}
		}
		if !m.Step {
			continue
		}
		k := sort{protocol: m.Protocol, dir: m.Dir, name: kindOf(&m)}
		if from == to {
			k.process = m.Process
		}
		seen[k]++
		s.nth = seen[k]
		switch {
		case m.Effect == wire.Confirm:
			open[c] = nil
		case m.Effect == wire.Publish && m.DeliveryTag > 0:
			if n := len(open[c]); n > 1 {
				out[open[c][n-1]].amid = true
			}
			open[c] = append(open[c], len(out))
		}
		out = append(out, s)
	}
	return out
}

// candidates chooses the points and faults to try, the most telling first.
func candidates(steps []step, faults []Fault, mode Mode, byName bool) []candidate {
	var out []candidate
	add := func(s step, f Fault, rank int) *candidate {
		c := candidate{Strike: Strike{At: s.Point, Message: s.Name, Kind: kindOf(&s.Message), Fault: f}, rank: rank}
		if byName {
			c.Nth = s.nth
		}
		out = append(out, c)
		return &out[len(out)-1]
	}
	for _, f := range faults {
		switch f {
		case Kill:
			kills := killPoints(steps, mode)
			if byName { // several processes do the same work: a few of each kind stand for the others
				kills = some(kills, mode, 4, func(step) bool { return true })
			}
			for _, s := range kills {
				add(s, Kill, 0)
			}
		case Cut:
			for _, s := range some(steps, mode, 2, func(s step) bool { return s.acts || s.Effect != wire.NoEffect }) {
				add(s, Cut, 2)
			}
			for _, s := range some(steps, mode, 1, func(s step) bool { return s.Effect == wire.NoEffect && s.Dir == wire.ToServer }) {
				add(s, Cut, 4)
			}
			if mode == Unpruned {
				for _, s := range steps {
					if s.Effect == wire.NoEffect && s.Dir == wire.ToClient {
						add(s, Cut, 5)
					}
				}
			}
		case Blackhole:
			waited := map[wire.Effect]bool{} // once for each kind of act
			for _, s := range some(steps, mode, 2, func(s step) bool {
				return s.Effect == wire.Publish || s.Effect == wire.Confirm || s.acts || answers(s) || mode == Unpruned
			}) {
				c := add(s, Blackhole, 1)
				if (s.acts || answers(s)) && !waited[s.Effect] {
					c.patient, waited[s.Effect] = true, true
				}
			}
		case Nack:
			for _, s := range some(steps, mode, 2, func(s step) bool { return s.Effect == wire.Publish && s.DeliveryTag > 0 }) {
				add(s, Nack, 1)
			}
		case Reject:
			for _, s := range some(steps, mode, 2, func(s step) bool { return s.amid }) {
				add(s, Reject, 1)
			}
		case FailStatement:
			for _, s := range some(steps, mode, 2, func(s step) bool {
				return CanFail(&s.Message) && (s.Dir == wire.ToServer || answers(s))
			}) {
				add(s, FailStatement, 3)
			}
		case Delay:
			for _, s := range some(steps, mode, 3, func(s step) bool {
				return s.acts || s.Effect == wire.Confirm || mode == Unpruned
			}) {
				add(s, Delay, 1)
			}
		case Expire:
			for _, s := range some(steps, mode, 3, func(s step) bool { return s.Effect == wire.Publish }) {
				add(s, Expire, 1).patient = true
			}
		case Shutdown:
			for _, s := range some(steps, mode, 1, func(s step) bool {
				return s.Protocol != wire.HTTP && (s.acts || s.Effect == wire.Confirm || s.Effect == wire.Done)
			}) {
				add(s, Shutdown, 3)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b candidate) int { return cmp.Compare(a.rank, b.rank) })
	return out
}

// answers says whether a step tells what a service has done.
func answers(s step) bool { return s.Protocol == wire.HTTP && s.Effect == wire.Done }

// killPoints chooses where to kill. What outlives a process depends only on the
// acts that had passed, so between two of them one point stands for all.
func killPoints(steps []step, mode Mode) (out []step) {
	for i, s := range steps {
		if mode == Unpruned || s.acts || mode == Full && s.Effect != wire.NoEffect || mode == Quick && i == len(steps)-1 {
			out = append(out, s)
		}
	}
	return out
}

// some picks the steps that fit: in quick mode at most n of each kind, spread
// over the run, otherwise all.
func some(steps []step, mode Mode, n int, fits func(step) bool) []step {
	type kind struct {
		protocol wire.Protocol
		dir      wire.Direction
		what     string
	}
	groups := map[kind][]step{}
	var order []kind
	for _, s := range steps {
		if !fits(s) {
			continue
		}
		k := kind{s.Protocol, s.Dir, kindOf(&s.Message)}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], s)
	}
	var out []step
	for _, k := range order {
		g := groups[k]
		if mode != Quick || len(g) <= n {
			out = append(out, g...)
			continue
		}
		for i := range n { // the first, the last, and evenly between
			j := 0
			if n > 1 {
				j = i * (len(g) - 1) / (n - 1)
			}
			out = append(out, g[j])
		}
	}
	slices.SortStableFunc(out, func(a, b step) int { return cmp.Compare(a.Seq, b.Seq) })
	return out
}
