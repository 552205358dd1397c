package crash

import (
	"fmt"
	"strings"

	"crashcourse/pkg/wire"
)

// Fault is a kind of fault.
type Fault string

// The faults. Each strikes just before the message at its point is forwarded.
const (
	Kill          Fault = "kill"      // SIGKILL to the process and all it started
	Cut           Fault = "cut"       // the connection breaks; the process lives
	Blackhole     Fault = "blackhole" // this stream swallows everything from here on; when the process has come to rest, or after three seconds, it is asked to stop, and killed
	Nack          Fault = "nack"      // the broker refuses the publish
	Reject        Fault = "reject"    // the broker refuses the publish at once, ahead of the confirms of earlier ones, as a full queue does
	FailStatement Fault = "fail"      // the statement fails with SQLSTATE 40001; a request is answered with 503 and never reaches its service; a response becomes a 502
	Delay         Fault = "delay"     // the message is held back until the other processes have come to rest: what a long pause does
	Expire        Fault = "expire"    // the message is held back for longer than any lease should last, and the process's idle PostgreSQL sessions end meanwhile, with the locks that they hold
	Shutdown      Fault = "shutdown"  // the server says that it goes away, and cuts the connection; HTTP services do not say so
)

func (f Fault) action() wire.Action {
	switch f {
	case Kill:
		return wire.Action{Kind: wire.Freeze}
	case Cut:
		return wire.Action{Kind: wire.Cut}
	case Blackhole:
		return wire.Action{Kind: wire.Blackhole}
	case Nack:
		return wire.Action{Kind: wire.Nack}
	case Reject:
		return wire.Action{Kind: wire.Reject}
	case FailStatement:
		return wire.Action{Kind: wire.Fail, SQLState: "40001"}
	case Delay, Expire:
		return wire.Action{Kind: wire.Hold}
	case Shutdown:
		return wire.Action{Kind: wire.Shutdown}
	}
	return wire.Action{}
}

// CanFail says whether [FailStatement] can strike at a message: at a statement, or
// at what a service is asked or answers.
func CanFail(m *wire.Message) bool {
	switch m.Protocol {
	case wire.HTTP:
		return m.Step
	case wire.PG:
		return m.Dir == wire.ToServer && (m.Type == "Query" || m.Type == "Execute") && m.Effect != wire.Rollback
	}
	return false
}

// ParseFault reads the name of a fault.
func ParseFault(text string) (Fault, error) {
	if f := Fault(text); f.action().Kind != wire.Pass {
		return f, nil
	}
	return "", fmt.Errorf("crash: there is no fault %q: use kill, cut, blackhole, nack, reject, fail, delay, expire or shutdown", text)
}

// Strike is one fault at one point.
type Strike struct {
	At      wire.Point
	Message string // the name of the message there
	Fault   Fault
	// Nth finds the message by its kind instead, as the nth of that kind in its
	// direction, whichever connection carries it: what concurrent answers need.
	// 0 goes by At.
	Nth  int
	Kind string
}

// String gives the form that [ParseSchedule] reads: "kill@p1.pg1>5".
func (s Strike) String() string { return string(s.Fault) + "@" + s.At.String() }

// Schedule is the faults of one run, in order.
type Schedule []Strike

// String joins the strikes with commas.
func (s Schedule) String() string {
	parts := make([]string, len(s))
	for i, k := range s {
		parts[i] = k.String()
	}
	return strings.Join(parts, ",")
}

// ParseSchedule reads what [Schedule.String] writes. The empty string is a run
// without faults.
func ParseSchedule(text string) (Schedule, error) {
	var out Schedule
	if text == "" {
		return nil, nil
	}
	for _, part := range strings.Split(text, ",") {
		fault, at, ok := strings.Cut(part, "@")
		if !ok {
			return nil, fmt.Errorf("crash: %q is not a fault at a point, such as kill@p1.pg1>5", part)
		}
		kind, err := ParseFault(fault)
		if err != nil {
			return nil, err
		}
		p, err := wire.ParsePoint(at)
		if err != nil {
			return nil, fmt.Errorf("crash: %w", err)
		}
		out = append(out, Strike{At: p, Fault: kind})
	}
	return out, nil
}
