// Package outbox judges the exercises of the outbox pattern.
//
// The reference answers, other right designs and wrong answers are in the
// folders beside this file. They are compiled apart: the judge never links an
// answer.
package outbox

import "crashcourse/pkg/crash"

// Specs returns what the judge knows of each exercise.
func Specs() []*crash.Spec {
	return []*crash.Spec{placeSpec(), relaySpec(), relaysSpec()}
}

// The tables that every exercise of the pattern works with, as its contract
// shows them.
const (
	schema = `
CREATE TABLE public.orders (
    id          uuid   PRIMARY KEY,
    customer    text   NOT NULL,
    total_cents bigint NOT NULL,
    status      text   NOT NULL DEFAULT 'pending'
);
CREATE TABLE public.outbox (
    seq          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id   uuid        NOT NULL UNIQUE,
    aggregate_id text        NOT NULL,
    type         text        NOT NULL,
    payload      jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
CREATE INDEX outbox_pending ON public.outbox (seq) WHERE published_at IS NULL;`
	grants = `GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON public.orders, public.outbox TO {{answer}};`
)

// The invariants, in the words that a learner reads.
var (
	noLostEvent = crash.Invariant{
		Name:     "no-lost-event",
		Says:     "Every event that was committed is published.",
		Expected: "A row is marked, or deleted, only after the broker has said basic.ack for its message and has not sent it back.",
		Hints: []string{
			"Compare the outbox with the queue: which row claims to be published, and is not in the queue?",
			"When does your program write down that a message is published? What does it know at that moment: that it sent the message, or that the broker has it?",
			"Put the channel into confirm mode, publish mandatory, wait for the confirmation of each message, look at what it says, and only then touch the row.",
		},
	}
	// For outbox/place: nothing is published there, so the event is the row.
	noOrderUnannounced = crash.Invariant{
		Name:     noLostEvent.Name,
		Says:     "Every order that is stored has its event in the outbox.",
		Expected: "The order and its event are stored by one transaction: both, or neither.",
		Hints: []string{
			"Find the order without an event. What came between the two?",
			"After which statement could the process have died, so that exactly this is left?",
			"Two statements share their fate only inside one transaction, on one connection.",
		},
	}
	noPhantomEvent = crash.Invariant{
		Name:     "no-phantom-event",
		Says:     "Nothing is announced that did not happen.",
		Expected: "Only what is committed becomes an event, and one event for one order.",
		Hints: []string{
			"Find the event that has no committed row behind it. When was it written or sent?",
			"What can still fail after your program has announced the event?",
			"The order and its event belong into one transaction, and nothing leaves for the broker before that transaction is committed.",
		},
	}
	noLostOrder = crash.Invariant{
		Name:     "no-lost-order",
		Says:     "An order whose Place returned nil is stored.",
		Expected: "Place returns nil only after COMMIT has succeeded.",
		Hints: []string{
			"For which order did Place return nil, although there is no row?",
			"Which errors does your program drop?",
			"The result of Commit is part of the answer: return it.",
		},
	}
	orderPerKey = crash.Invariant{
		Name:     "order-per-key",
		Says:     "The events of one aggregate first arrive in the order of seq.",
		Expected: "The next event of an aggregate is sent only when the one before it is known to be published.",
		Hints: []string{
			"Find the aggregate whose later event arrived first. Who sent the later one, and where was the earlier one at that moment?",
			"If one event fails or is locked by somebody else, what does your program do with the events of the same aggregate behind it?",
			"Sort by seq, and let only one relay work on an aggregate at a time: a lock that ends with the transaction or the session is given back even by the dead.",
		},
	}
	eventIntact = crash.Invariant{
		Name:     "event-intact",
		Says:     "An event carries what its row says: id, type, payload, and what the contract asks for.",
		Expected: "Message ID = message_id, routing key = type, body = payload, content type application/json, delivery mode persistent.",
		Hints: []string{
			"Compare the message in the detail with its row, property by property.",
			"A message id that is made anew for each attempt cannot tell a consumer that it has seen the event before.",
			"Read the list of properties in the contract once more.",
		},
	}
	noResend = crash.Invariant{
		Name:     "no-resend",
		Says:     "When everything is published, nothing more is published.",
		Expected: "A published row has a published_at or is gone, so that the next start finds nothing to do.",
		Hints: []string{
			"What tells your program, after a restart, that an event is already published?",
			"Memory dies with the process. What of yours survives?",
			"Set published_at, or delete the row, in a transaction that you commit.",
		},
	}
	takesOver = crash.Invariant{
		Name:     "takes-over",
		Says:     "When the process at work ends, another goes on within two seconds.",
		Expected: "Those that wait for the lock wait in the server, or try again at short and even intervals.",
		Hints: []string{
			"How does a process that has nothing to do find out that it is needed?",
			"How long is the pause between two tries after a minute? After an hour?",
			"A pause that doubles is for a server in trouble. A lock that somebody else holds is no trouble: try at an even pace, or wait in pg_advisory_lock.",
		},
	}
	stopsWhenAsked = crash.Invariant{
		Name:     "stops-when-asked",
		Says:     "When its context ends, the relay ends within two seconds.",
		Expected: "Every wait in the program also waits for ctx.Done().",
		Hints: []string{
			"Which wait in your program does not look at ctx?",
			"time.Sleep and a plain channel receive cannot be interrupted: use select.",
			"Check ctx.Err() in the loop and return nil when it is set, also when the error you got was caused by it.",
		},
	}
)
