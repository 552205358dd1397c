package crash

import (
	"context"
	"encoding/json"
	"math/rand/v2"
)

// Spec is what a judge knows about one exercise: the work, the faults worth
// trying, and what must hold afterwards.
type Spec struct {
	ID         string      // pattern/exercise
	Invariants []Invariant // every name that a Violation may carry
	Faults     []Fault     // the kinds that the sweep tries
	Processes  int         // how many processes run at once; 0 means 1

	// Variants are further starting states, each tried in one run without
	// another fault. The scenario gets the variant's name.
	Variants []Variant

	// Schema makes the tables, once for each arena. Grants gives the answer its
	// rights in them; it may run again. {{answer}} stands for the answer's role.
	Schema, Grants string

	// Queues are queues that the scenario makes and the answer may declare and
	// consume, beside those that it names answer.…
	Queues []string

	// Exchanges are exchanges that the answer may declare and publish to, beside
	// events.
	Exchanges []string

	// Services are HTTP services that the answer calls. The scenario plays them:
	// see [Serving]. A process finds each at the address in its environment, see
	// [ServiceEnv], and reaches it only through the wires.
	Services []string

	// Rests says that the work counts as done only once the processes have come
	// to rest: until then they may do something a second time.
	Rests bool

	// StopsWhenAsked names the invariant that breaks when the process has not
	// ended two seconds after it was asked to stop. Empty: it is not asked.
	StopsWhenAsked string

	// Scenario makes the work of one run. Data comes from rng, so that a seed
	// repeats it.
	Scenario func(arena *Arena, rng *rand.Rand, variant string) (Scenario, error)
}

// Variant is a starting state that is itself the fault, such as an exchange to
// which no queue is bound yet.
type Variant struct {
	Name string // the fault's name in a verdict
	Says string // what is different, in a few words
	Slow bool   // it takes long: the mode Quick leaves it out
}

// Invariant is a promise that must hold after every run.
type Invariant struct {
	Name     string
	Says     string   // the promise in one sentence
	Expected string   // what a right program would have had
	Hints    []string // from a nudge to nearly the answer; none gives code
}

// Violation is an invariant found broken.
type Violation struct {
	Invariant string
	Detail    string // what was found: which event, which order
	Explains  bool   // where the work was not finished: this is why
}

// Scenario is the work of one run, made anew for each. The runner calls its
// methods from one goroutine.
type Scenario interface {
	// Reset puts tables and queues into the starting state.
	Reset(ctx context.Context) error
	// Started is called for each process, also for one that replaces another.
	Started(ctx context.Context, p *Process) error
	// Replied is called for each line the process sent on its control channel.
	Replied(ctx context.Context, p *Process, reply Reply) error
	// Ended is called when a process has ended and the servers have noticed.
	Ended(ctx context.Context, p *Process) error
	// Done moves the scenario on and says whether all work is finished, or can no
	// longer be. It is called after every answer on the wires, and now and then.
	Done(ctx context.Context) (bool, error)
	// Progress counts what has been achieved so far. A run in which it stands
	// still for too long is hung.
	Progress() int
	// State says what outlives the process, in a form that is the same for two
	// runs with different data: events and orders by number, not by id. A crash
	// that leaves a state which was recovered from before is not recovered from
	// again. "" is never the same.
	State(ctx context.Context) (string, error)
	// Check looks for broken invariants, the most telling first. The run had the
	// given number of faults. A run without faults is checked once more after
	// Settle.
	Check(ctx context.Context, faults int) ([]Violation, error)
	// Settle is called in a run without faults, when all processes were stopped
	// with nothing left to do. One is started again then, and has to leave
	// everything as it is.
	Settle(ctx context.Context) error
	// Delayed is called when a fault holds a process back: work may now arrive
	// that another process can take.
	Delayed(ctx context.Context) error
	// Tables shows what the tables and queues hold, for the report.
	Tables(ctx context.Context) ([]Table, error)
	// Close frees what the scenario holds.
	Close()
}

// Quiet answers those calls of a [Scenario] that many have no use for. Embed it.
type Quiet struct{}

// Started does nothing.
func (Quiet) Started(context.Context, *Process) error { return nil }

// State says nothing, so that no crash counts as one that has been seen before.
func (Quiet) State(context.Context) (string, error) { return "", nil }

// Tables shows nothing.
func (Quiet) Tables(context.Context) ([]Table, error) { return nil, nil }

// Replied ignores what the process says.
func (Quiet) Replied(context.Context, *Process, Reply) error { return nil }

// Ended does nothing.
func (Quiet) Ended(context.Context, *Process) error { return nil }

// Settle does nothing.
func (Quiet) Settle(context.Context) error { return nil }

// Delayed does nothing.
func (Quiet) Delayed(context.Context) error { return nil }

// Close does nothing.
func (Quiet) Close() {}

// Call is one line from the judge to a process on its control channel.
type Call struct {
	ID   int             `json:"id,omitempty"`
	Arg  json.RawMessage `json:"arg,omitempty"`
	Last bool            `json:"last,omitempty"` // the process ends when this call returns
	Stop bool            `json:"stop,omitempty"` // end the context of all calls
}

// Reply is one line from a process to its judge. It is a claim, not evidence: a
// claim of success only makes the judge look for what was claimed.
type Reply struct {
	ID             int    `json:"id"`
	Error          string `json:"error,omitempty"`
	NotImplemented bool   `json:"not_implemented,omitempty"`
	// Infrastructure is set when the process could not reach a server before the
	// answer was called.
	Infrastructure bool `json:"infrastructure,omitempty"`
}
