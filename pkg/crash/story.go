package crash

import (
	"fmt"
	"strings"

	"crashcourse/pkg/wire"
)

// tell turns a failing run into a story that teaches.
func (j *judging) tell(b job, p PointResult, res result) *Failure {
	f := &Failure{Invariant: p.Violation, At: p.At, Message: p.Message, Fault: p.Fault, Detail: p.Detail,
		Schedule: b.schedule.String(), Trace: &res.trace, Scenes: res.scenes, Replay: j.replay(b)}
	for _, i := range append([]Invariant{allWorkDone}, j.spec.Invariants...) {
		if i.Name == p.Violation {
			f.Expected, f.Hints = i.Expected, i.Hints
		}
	}
	for _, t := range res.atCrash {
		t.When = "at the crash"
		f.Tables = append(f.Tables, t)
	}
	for _, t := range res.after {
		t.When = "at the end"
		f.Tables = append(f.Tables, t)
	}
	f.Story = story(b, p, res.trace)
	return f
}

// replay is the command that repeats a run, or "".
func (j *judging) replay(b job) string {
	if j.options.Replay == "" {
		return ""
	}
	s := fmt.Sprintf("%s --seed %d", j.options.Replay, j.options.Seed)
	if len(b.schedule) > 0 {
		s += fmt.Sprintf(" --at %q", b.schedule.String())
	}
	if b.variant != "" {
		s += " --variant " + b.variant
	}
	return s
}

// story tells what happened around the faults, a sentence a line.
func story(b job, p PointResult, t wire.Trace) []string {
	var out []string
	if len(b.schedule) == 0 {
		if b.variant != "" {
			out = append(out, "In this run "+p.Message+".")
		} else {
			out = append(out, "This run had no fault at all.")
		}
	}
	var acts []string // what had been done when the fault struck
	before := ""
	dark := map[wire.Point]bool{} // streams, as points without a step
	for _, m := range t.Messages {
		if !m.Step {
			continue
		}
		stream := m.Point
		stream.Index = 0
		if dark[stream] {
			continue // it has been told that this is swallowed
		}
		if m.Fault != "" {
			dark[stream] = m.Fault == string(Blackhole)
			if len(acts) > 0 {
				out = append(out, "Before the fault the program had sent "+tally(acts)+".")
			}
			out = append(out, strike(m, before))
			acts, before = nil, ""
			continue
		}
		if m.Dir == wire.ToServer && m.Effect != wire.NoEffect && m.Effect != wire.Rollback && m.Type != "Sync" {
			acts = append(acts, m.Name)
		}
		before = m.Name
	}
	switch {
	case len(b.schedule) > 0 && len(acts) > 0:
		out = append(out, "Afterwards the program sent "+tally(acts)+".")
	case len(b.schedule) > 0:
		out = append(out, "Afterwards the program sent nothing more that lasts.")
	case len(acts) > 0:
		out = append(out, "The program sent "+tally(acts)+".")
	default:
		out = append(out, "The program sent nothing that lasts.")
	}
	if p.Detail != "" {
		out = append(out, strings.ToUpper(p.Detail[:1])+p.Detail[1:]+".")
	}
	return out
}

// strike says in words what a fault did.
func strike(m wire.Message, before string) string {
	where := fmt.Sprintf("At point %s", m.Point)
	if before != "" {
		where += ", after " + before + " and before " + m.Name
	} else {
		where += ", before " + m.Name
	}
	if m.Dir == wire.ToClient {
		where += " had come back"
	}
	switch Fault(m.Fault) {
	case Kill:
		return where + ", the process was killed."
	case Cut:
		return where + ", the connection broke; the process lived on."
	case Blackhole:
		return where + ", this direction of the connection went dark: what was sent from then on was swallowed. When the process had come to rest it was ended."
	case Nack:
		return where + ", the broker refused the message with basic.nack."
	case Reject:
		return where + ", the broker refused the message with basic.nack, at once: ahead of the confirms of those before it, as a queue that is full does."
	case FailStatement:
		switch {
		case m.Protocol == wire.HTTP && m.Dir == wire.ToServer:
			return where + ", the program was answered 503 Service Unavailable, and " + m.Service + " never saw the request."
		case m.Protocol == wire.HTTP:
			return where + ", the response was replaced by 502 Bad Gateway: the program was told of a failure, and " + m.Service + " had done its work."
		}
		return where + ", the statement failed with SQLSTATE 40001."
	case Delay:
		return where + ", the message was held back for a while, as by a long pause of the process, and the world went on."
	case Expire:
		return where + ", the message was held back while the server ended the process's idle PostgreSQL sessions, and with them the locks that they held. The world went on, and then the process."
	case Shutdown:
		return where + ", the server said that it was shutting down and closed the connection."
	}
	return where + ": " + m.Fault + "."
}

// tally counts what was sent: "3 × INSERT outbox, COMMIT".
func tally(names []string) string {
	count := map[string]int{}
	var order []string
	for _, n := range names {
		if count[n] == 0 {
			order = append(order, n)
		}
		count[n]++
	}
	for i, n := range order {
		if count[n] > 1 {
			order[i] = fmt.Sprintf("%d × %s", count[n], n)
		}
	}
	return strings.Join(order, ", ")
}
