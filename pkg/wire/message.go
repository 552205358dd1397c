package wire

import "time"

// Effect says what a message may do to what outlives the process, or tells the
// process about it. It decides which messages are worth a fault.
type Effect string

// The effects. Towards the server they act; towards the client they answer.
const (
	NoEffect Effect = ""         // nothing that lasts: reads, set-up, SQL that only begins
	Write    Effect = "write"    // SQL that may change rows, inside a transaction or alone
	Commit   Effect = "commit"   // ends a transaction and keeps it (also the Sync that ends an implicit one)
	Rollback Effect = "rollback" // ends a transaction and drops it
	Publish  Effect = "publish"  // basic.publish, with its content
	Ack      Effect = "ack"      // the client settles a delivery: basic.ack, basic.nack, basic.reject
	Deliver  Effect = "deliver"  // the broker hands over a message: basic.deliver, basic.get-ok
	Confirm  Effect = "confirm"  // the broker settles a publish: basic.ack, basic.nack towards the client
	Return   Effect = "return"   // basic.return
	Call     Effect = "call"     // an HTTP request that may change something: any method but GET, HEAD, OPTIONS and TRACE
	Done     Effect = "done"     // the server's answer to a write, commit, rollback or call
)

// Message is one protocol message as it passed the proxy.
type Message struct {
	Seq    int           `json:"seq"` // place in the trace, from 1
	Point                // where it passed
	Time   time.Duration `json:"time"`             // since the trace began, in nanoseconds
	Step   bool          `json:"step,omitempty"`   // worth stopping at; the rest is protocol detail between steps
	Type   string        `json:"type"`             // the protocol's own name: Query, Execute, CommandComplete, basic.publish, request
	Name   string        `json:"name"`             // as people say it: COMMIT, INSERT outbox, basic.publish order.placed, POST /charges, 201 POST /charges
	Effect Effect        `json:"effect,omitempty"` // see [Effect]
	Detail string        `json:"detail,omitempty"` // SQL, or the start of a body, of HTTP with a few headers before it; valid UTF-8, at most Config.MaxDetail bytes
	Size   int64         `json:"size"`             // bytes on the wire
	Fault  string        `json:"fault,omitempty"`  // the fault that struck here, if one did

	// AMQP only.
	MessageID   string `json:"message_id,omitempty"`   // of what is published, delivered or returned
	DeliveryTag uint64 `json:"delivery_tag,omitempty"` // confirms, deliveries and their settlements; of a publish on a channel with confirms, the tag its confirm will carry
	Multiple    bool   `json:"multiple,omitempty"`     // settles all tags up to DeliveryTag
	Channel     uint16 `json:"channel,omitempty"`

	// HTTP only.
	Service string `json:"service,omitempty"` // its name in Config.Services
	Status  int    `json:"status,omitempty"`  // of a response
}

// String says where the message passed and what it was: "p1.pg1>5 COMMIT".
func (m Message) String() string { return m.Point.String() + " " + m.Name }

// Trace is the ordered record of one run, as the wires saw it. Its JSON form is
// stable: fields are added, never renamed or given another meaning; Version
// grows when that promise has to be broken.
type Trace struct {
	Version  int       `json:"version"` // TraceVersion
	Messages []Message `json:"messages"`
	Dropped  int       `json:"dropped,omitempty"` // messages that passed after the trace was full
}

// TraceVersion is the version of the JSON form that this package writes.
const TraceVersion = 1
