package lab

import (
	"fmt"
	"strings"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/wire"
)

// Fault is something that goes wrong in a run, just before a message passes.
type Fault struct {
	kind   crash.Fault
	before string
	nth    int
}

// Kill ends the process just before the first message whose name begins with
// before: "basic.publish", "COMMIT", "UPDATE outbox", "basic.ack", "POST
// /charges". Names are those in the diagram. Answers of PostgreSQL end with done:
// "COMMIT done"; responses of a service begin with the status: "201 POST
// /charges".
func Kill(before string) Fault { return Fault{crash.Kill, before, 1} }

// Cut breaks that message's connection just before it. The process lives.
func Cut(before string) Fault { return Fault{crash.Cut, before, 1} }

// Blackhole swallows that message and all that follow it in the same direction
// of the same connection. The connection stays open, and nobody is told. When
// the process has come to rest it is killed.
func Blackhole(before string) Fault { return Fault{crash.Blackhole, before, 1} }

// Nack has the broker refuse that basic.publish. The channel must be in confirm
// mode.
func Nack(before string) Fault { return Fault{crash.Nack, before, 1} }

// Fail has that statement fail with SQLSTATE 40001. A request to a service is
// answered with 503 and never reaches it; a response is replaced by 502, though
// the service has done what it was asked.
func Fail(before string) Fault { return Fault{crash.FailStatement, before, 1} }

// Hold holds that message back until the other processes of the run have
// nothing left to do: what a long pause of this process would do.
func Hold(before string) Fault { return Fault{crash.Delay, before, 1} }

// Nth makes the fault strike before the nth such message, from 1.
func (f Fault) Nth(n int) Fault {
	f.nth = max(1, n)
	return f
}

// String says which fault, and where: "a kill before basic.publish".
func (f Fault) String() string {
	s := fmt.Sprintf("a %s before %s", f.kind, f.before)
	switch f.kind {
	case crash.Delay:
		s = "a pause before " + f.before
	case crash.FailStatement:
		s = "a failure of " + f.before
	}
	if f.nth > 1 {
		s += fmt.Sprintf(" number %d", f.nth)
	}
	return s
}

// meets says whether the fault is meant for messages such as m.
func (f Fault) meets(m *wire.Message) bool {
	if !m.Step || m.Name != f.before && !strings.HasPrefix(m.Name, f.before+" ") {
		return false
	}
	// Only a publish that waits for a confirm can be refused.
	if f.kind == crash.Nack && (m.Effect != wire.Publish || m.DeliveryTag == 0) {
		return false
	}
	if f.kind == crash.FailStatement && !crash.CanFail(m) {
		return false
	}
	// "COMMIT" does not mean its answer, "COMMIT done".
	return !strings.HasSuffix(m.Name, " done") || strings.HasSuffix(f.before, " done")
}

func (f Fault) action(release <-chan wire.Action) wire.Action {
	switch f.kind {
	case crash.Cut:
		return wire.Action{Kind: wire.Cut}
	case crash.Blackhole:
		return wire.Action{Kind: wire.Blackhole}
	case crash.Nack:
		return wire.Action{Kind: wire.Nack}
	case crash.FailStatement:
		return wire.Action{Kind: wire.Fail, SQLState: "40001"}
	case crash.Delay:
		return wire.Action{Kind: wire.Hold, Until: release}
	}
	return wire.Action{}
}
