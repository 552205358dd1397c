// Package breaker judges the exercises of the circuit breaker.
//
// The reference answers, other right designs and wrong answers are in the folders
// beside this file. They are compiled apart: the judge never links an answer.
//
// Most of what a breaker does wrong shows in which calls reached the service, so
// that is what is counted. Times are compared one way only: a call that reached the
// service before the circuit can have been half-open, by the judge's clock, is one
// that the breaker should not have made, however slow the machine is.
package breaker

import "crashcourse/pkg/crash"

// Specs returns what the judge knows of each exercise.
func Specs() []*crash.Spec { return []*crash.Spec{guardSpec(), fallbackSpec(), probeSpec()} }

// The table of breaker/fallback, as its contract shows it.
const (
	schema = `
CREATE TABLE public.payments (
    id     text        PRIMARY KEY,
    cents  bigint      NOT NULL,
    key    text        NOT NULL UNIQUE,
    status text        NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'charged', 'declined')),
    due_at timestamptz NOT NULL DEFAULT now()
);`
	grants = `GRANT SELECT, INSERT, UPDATE, DELETE, REFERENCES, TRIGGER ON public.payments TO {{answer}};`
)

// The invariants, in the words that a learner reads.
var (
	answeredInTime = crash.Invariant{
		Name:     "answered-in-time",
		Says:     "Every client is answered in time, whatever the service does.",
		Expected: "Each call has a deadline, and when that is over the client is told.",
		Hints: []string{
			"Which client still waits, and for what? What would end that wait?",
			"A service that hangs sends no error. Who ends the call? And does anything in your program wait for a lock that it holds itself?",
			"Call charge with context.WithTimeout(ctx, s.Timeout). A callback that a breaker calls while it holds its lock must not ask the breaker anything.",
		},
	}
	openMeansNoCalls = crash.Invariant{
		Name:     "open-means-no-calls",
		Says:     "While the circuit is open, no call reaches the service.",
		Expected: "As many calls as the settings say have failed, the circuit is open, and calls are rejected without being made until Reset is over.",
		Hints: []string{
			"Which calls had failed by then, and how? Did your breaker hear of each?",
			"A call that hangs has failed when its deadline is over. Is the deadline inside of what the breaker watches, or around it?",
			"The breaker's function is the call with its deadline, and returns the deadline's error. There is one breaker, made once. It opens by FailureRate and Volume, not by failures in a row.",
		},
	}
	noFalseTrip = crash.Invariant{
		Name:     "no-false-trip",
		Says:     "The circuit does not open while the service works.",
		Expected: "It opens only if at least Volume calls ended within Window and at least FailureRate percent of them failed, not counting clients who left, and counting what was declined as a success.",
		Hints: []string{
			"Which calls does your breaker take for failures? Was it the service that failed?",
			"What says context.Canceled about the service? What says a declined card? And how long ago may a failure be that still counts?",
			"Tell errors apart with errors.Is: ErrDeclined is a success, context.Canceled is neither. Let no circuit open below Volume, and forget what is older than Window: with gobreaker, IsSuccessful, IsExcluded, ReadyToTrip and Interval.",
		},
	}
	probeLimit = crash.Invariant{
		Name:     "probe-limit",
		Says:     "While the circuit is half-open, no more than Probes calls are under way.",
		Expected: "A call takes one of Probes places before it is made, and is rejected if there is none, until as many as Probes have succeeded.",
		Hints: []string{
			"How many calls reached the service at once? What has let the second one through, and the last?",
			"Between asking whether there is a place and taking it, who else can ask? And whose success was it that closed the circuit: that of a probe, and of how many?",
			"Count under one lock. Give each change of state a number that a call takes along: if it is another one when the call ends, the call changes nothing. Close only after Probes successes.",
		},
	}
	recovers = crash.Invariant{
		Name:     "recovers",
		Says:     "When the service works again, so does the checkout.",
		Expected: "After Reset calls are let through as probes, and when they succeed the circuit closes.",
		Hints: []string{
			"The service works again, and calls are still rejected. What state is your breaker in, and what would change it?",
			"How does each probe end: with success, with failure, by its deadline, because its client left? What does your breaker do in each case?",
			"Every call that was let through gives its place back, however it ends. One that failed opens the circuit for another Reset; one that was cancelled frees the place for another probe.",
		},
	}
	chargedOnce = crash.Invariant{
		Name:     "charged-once",
		Says:     "Every payment is charged once.",
		Expected: "One call of the checkout makes one request. Whoever makes it again, outside of the breaker, does it with the same key.",
		Hints: []string{
			"How often did the payment reach the service? Who sent it the second time?",
			"A call that was given up may have been carried out. How can the service tell that the next one means the same payment?",
			"Do not retry inside of the breaker. Keep one idempotency key with the payment, from before the first attempt, and send it with every attempt.",
		},
	}
	trueAnswer = crash.Invariant{
		Name:     "true-answer",
		Says:     "A client is told that a payment is charged if the service has said so, and only then.",
		Expected: "What charge returned, or ErrOpen.",
		Hints: []string{
			"What did the service say of this payment, and what did your function return?",
			"What does your function return for a call that was not made?",
			"Return the error of charge as it is, and ErrOpen where it was not called.",
		},
	}
	noLostPayment = crash.Invariant{
		Name:     "no-lost-payment",
		Says:     "A payment that was answered, or that the service has charged, has its row, and each row ends as what the service has said.",
		Expected: "The row is committed, as queued, before the service is asked. It becomes charged or declined after the service has said so, and what is still queued is tried again.",
		Hints: []string{
			"Which payment is it? Where was it when the process died, or when its client was answered: in the table, in memory, at the service?",
			"Suppose that the process dies right here. What does the next one find in the table, and does it do the right thing about it?",
			"INSERT and commit first, then charge, then UPDATE. work looks again and again for rows that are queued and due. Whatever keeps two from trying the same row ends by itself when one of them dies.",
		},
	}
	finalAnswer = crash.Invariant{
		Name:     "final-answer",
		Says:     "What the service has declined is not asked for again.",
		Expected: "After ErrDeclined the row says declined, and no attempt follows.",
		Hints: []string{
			"What did the service say of this payment, and what did your program make of it?",
			"Which errors can another attempt mend? Is this one of them?",
			"errors.Is(err, breaker.ErrDeclined): set the row to declined, and answer so.",
		},
	}
)
