package wire

import "time"

// Action is what the proxy does with a message. The zero value lets it pass.
type Action struct {
	Kind ActionKind
	// Until is read by Hold: the stream waits, without holding up any other,
	// until an Action arrives here and is then applied. A closed channel passes.
	// The wait also ends, and the message is dropped, when the lane freezes or
	// closes or the connection ends; nil waits for that alone.
	Until <-chan Action
	// For is how long Delay holds the stream back.
	For time.Duration
	// SQLState is the code that Fail raises in PostgreSQL; 40001 when it is empty
	// or no code.
	SQLState string
}

// ActionKind is the kind of an [Action]. Each but Pass, Hold, Delay and
// Duplicate is a fault that strikes before the message is forwarded.
type ActionKind string

// The kinds of action.
const (
	Pass  ActionKind = ""
	Hold  ActionKind = "hold"
	Delay ActionKind = "delay"
	// Freeze stops the whole lane: neither this message nor any later one of
	// this process passes, either way. It is the wire's half of a kill: what had
	// passed before is a consistent prefix over all servers.
	Freeze ActionKind = "freeze"
	// Cut breaks this connection, both ways; the process lives and sees a reset.
	// Towards the server what was forwarded before is delivered first.
	Cut ActionKind = "cut"
	// Blackhole swallows this message and all later ones of this stream (this
	// direction of this connection), silently. The connection stays open, and the
	// end of the stream is swallowed too: the peer does not learn of it until the
	// lane closes.
	Blackhole ActionKind = "blackhole"
	// Nack applies to a basic.publish on a channel with confirms: the message
	// goes nowhere and the client is told basic.nack for it. Elsewhere it passes.
	Nack ActionKind = "nack"
	// Reject is Nack by a broker in a hurry: the client is told ahead of the
	// confirms of what it published before, as by a full queue with
	// x-overflow: reject-publish.
	Reject ActionKind = "reject"
	// Fail applies to a PostgreSQL Query or Execute: the server raises an error
	// with SQLState in its place. A ROLLBACK passes, and so does a statement in a
	// transaction block that has failed already.
	//
	// An HTTP request is answered with 503, and the service never sees it; one
	// that was sent while others wait for their responses passes. In the place of
	// a response goes a 502: what was asked for is done, and the client does not
	// know. Elsewhere Fail passes.
	Fail ActionKind = "fail"
	// Shutdown tells the client that the server goes away (FATAL 57P01, or
	// connection.close 320), then cuts the connection. HTTP has no such message:
	// there it passes.
	Shutdown ActionKind = "shutdown"
	// Duplicate applies to a basic.publish: it passes, and Config.Twin is called
	// with a copy for the caller to publish on a connection of its own.
	Duplicate ActionKind = "duplicate"
)
