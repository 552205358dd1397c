// Package inbox judges the exercises of the idempotent consumer.
//
// The reference answers, other right designs, wrong answers and attacks are in
// the folders beside this file. They are compiled apart: the judge never links an
// answer.
package inbox

import "crashcourse/pkg/crash"

// Specs returns what the judge knows of each exercise.
func Specs() []*crash.Spec { return []*crash.Spec{handleSpec(), consumeSpec(), batchSpec()} }

// The tables that every exercise of the pattern works with, as its contract
// shows them.
const (
	schema = `
CREATE TABLE public.accounts (
    id            text   PRIMARY KEY,
    balance_cents bigint NOT NULL DEFAULT 0
);
CREATE TABLE public.ledger (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id text   NOT NULL REFERENCES public.accounts,
    cents      bigint NOT NULL,
    tx         xid8   NOT NULL DEFAULT pg_current_xact_id()
);
CREATE TABLE public.inbox (
    consumer   text        NOT NULL,
    message_id text        NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, message_id)
);`
	grants = `GRANT SELECT, INSERT, UPDATE, DELETE ON public.accounts, public.ledger, public.inbox TO {{answer}};
GRANT REFERENCES, TRIGGER ON public.accounts, public.ledger, public.inbox TO {{answer}};`
)

// The invariants, in the words that a learner reads.
var (
	effectOnce = crash.Invariant{
		Name:     "effect-once",
		Says:     "However often a payment is delivered, its money moves once.",
		Expected: "The transaction that books a payment also remembers its message, and a second one that tries to remember it learns that it is known.",
		Hints: []string{
			"Which payment moved twice? What brought its message the second time, and what did your program know then?",
			"Two transactions can both look for a message, and both find nothing. What can only one of them do?",
			"INSERT INTO inbox … ON CONFLICT DO NOTHING comes first, in the transaction that moves the money. The number of rows it inserted says whether to go on.",
		},
	}
	noLostMessage = crash.Invariant{
		Name:     "no-lost-message",
		Says:     "Every payment is booked.",
		Expected: "A payment counts as known only if the transaction that booked it has committed. Whatever fails leaves its message in the queue.",
		Hints: []string{
			"Which payment is not booked? What made your program believe that it was, or that it never could be?",
			"If your program dies between remembering the message and moving the money, what does the next delivery find?",
			"Remember and move in one transaction. Return the errors of both. Tell two messages apart by the message ID, together with your consumer's name, and by nothing else.",
		},
	}
	noWrongAck = crash.Invariant{
		Name:     "no-wrong-ack",
		Says:     "A message is acknowledged only when its payment is booked.",
		Expected: "basic.ack comes after COMMIT has succeeded, and covers no delivery but those that were booked.",
		Hints: []string{
			"Look for the ack of the lost payment in the picture. Which transaction had committed by then?",
			"When does the broker forget a message? Does your ack cover several deliveries, or one of another channel?",
			"Acknowledge by hand, after COMMIT, each delivery on the channel that brought it. With multiple, all earlier deliveries of that channel have to be dealt with.",
		},
	}
	poisonParked = crash.Invariant{
		Name:     "poison-parked",
		Says:     "A message that can never be booked goes to the dead letters, and no other does.",
		Expected: "basic.reject or basic.nack without requeue, for these messages and no others.",
		Hints: []string{
			"Which message is it? What did your program do with it: acknowledge it, put it back, die of it?",
			"Tell what is wrong with the message from what is wrong with the world. Only the first is there again at the next try.",
			"A message without ID, a body that is no payment, an account that does not exist: reject without requeue. A serialization failure, a lost connection: try again.",
		},
	}
	acknowledged = crash.Invariant{
		Name:     "acknowledged",
		Says:     "A message that is dealt with does not come back.",
		Expected: "Each delivery is acknowledged or rejected, also one whose message was booked before.",
		Hints: []string{
			"After your program was stopped, messages were in the queue again. Which deliveries did it leave open?",
			"What does your program do with a delivery whose payment is booked already?",
			"Acknowledge it, like the first.",
		},
	}
	othersGoOn = crash.Invariant{
		Name:     "others-go-on",
		Says:     "Payments that wait for the lock of their account do not hold up those of other accounts.",
		Expected: "Several payments are under way at the same time, each on a connection of its own, and the prefetch leaves room for them.",
		Hints: []string{
			"An account was locked by somebody else. What did your program do meanwhile?",
			"How many deliveries does the broker hand out before it wants an ack? How many does your program work on at once?",
			"A few goroutines that each take a delivery, book it and acknowledge it are enough; the pool has four connections.",
		},
	}
	orderPerKey = crash.Invariant{
		Name:     "order-per-key",
		Says:     "The payments of one account are booked in the order in which they came.",
		Expected: "One after the other, and after an error nothing of the same account is booked before what failed.",
		Hints: []string{
			"Which payment overtook which? Where was the first one when the second was booked?",
			"What does the broker do with a message that you put back, if you have later ones in hand already?",
			"Do not put back: try again yourself, or return an error so that everything in hand comes again, in order.",
		},
	}
	inBatches = crash.Invariant{
		Name:     "in-batches",
		Says:     "Many payments are booked in few transactions.",
		Expected: "A transaction takes up to a hundred of the payments that wait.",
		Hints: []string{
			"Count the COMMITs in the picture. How many payments does each carry?",
			"How many messages does the broker give you before you acknowledge one? How long do you wait for the next one before you begin?",
			"Set the prefetch to a few hundred. Gather deliveries until there are a hundred, or none has come for some milliseconds, and book them together.",
		},
	}
	stopsWhenAsked = crash.Invariant{
		Name:     "stops-when-asked",
		Says:     "When its context ends, the consumer returns nil within two seconds.",
		Expected: "Every wait in the program also waits for ctx.Done().",
		Hints: []string{
			"Which wait in your program does not look at ctx?",
			"A plain channel receive cannot be interrupted: use select.",
			"Return nil when ctx.Err() is set, also when an error was caused by it.",
		},
	}
)
