// Package breaker stops calling a service that is down, and loses nothing meanwhile:
// the circuit breaker, with a fallback that queues payments durably, on PostgreSQL.
//
// # The problem
//
// A service hangs. Each call to it waits for its timeout, holds a goroutine, a
// connection and a customer, and soon whoever calls is as dead as what he calls. The
// calls that are made keep the service from getting up.
//
// And a call that was given up may have been carried out. Whoever queues the payment
// then, as a fallback, and makes it again charges the customer twice. Whoever does
// not may never charge him.
//
// # The way out
//
// A [Breaker] counts how calls end. When too many fail its circuit opens, and calls
// are rejected without being made; after a while a few are let through, the probes,
// and if they succeed it closes:
//
//	b, err := breaker.New(breaker.Options{Name: "bank"})
//	if err != nil {
//		return err
//	}
//	err = b.Do(ctx, func(ctx context.Context) error { return charge(ctx, order) })
//	if errors.Is(err, breaker.ErrOpen) {
//		// not called
//	}
//
// It is github.com/sony/gobreaker/v2 with what that leaves to its user: a deadline
// inside, a rate over a rolling window, callers that give up, and events that may use
// the breaker. [Options] has the defaults, and the names in other libraries.
//
// A [Queue] stores each request before the first attempt, and its idempotency key
// with it, makes that attempt through the breaker, and makes it again later where it
// failed:
//
//	q, err := breaker.NewQueue(pool, breaker.QueueOptions{
//		Name:    "payments",
//		Breaker: b,
//		Call: func(ctx context.Context, a breaker.Attempt) ([]byte, error) {
//			req.Header.Set("Idempotency-Key", a.Key)
//			…
//		},
//		Done: func(ctx context.Context, tx pgx.Tx, a breaker.Attempt, answer []byte) error {
//			_, err := tx.Exec(ctx, "UPDATE orders SET status = 'paid' …")
//			return err
//		},
//	})
//	r, err := q.Submit(ctx, breaker.Request{Key: "charge-" + order.ID, Body: body})
//	// r.Status is Done or Queued: that is the answer to the customer
//
// and in one process or in several, before which [Migrate] makes the table:
//
//	return q.Run(ctx) // until ctx ends
//
// # What holds
//
//   - open-means-no-calls: while the circuit is open, no function is called.
//   - probe-limit: in half-open, no more than Options.Probes functions are called
//     before it has closed or opened again; cancelled ones not counted, which free
//     their place.
//   - recovers: ResetTimeout after it has opened, the next call is a probe, and
//     when all probes have succeeded it is closed. A probe that hangs is given up
//     after Timeout, and the circuit opens until the next one. Panics and
//     runtime.Goexit count as failures too. (Without a Timeout a probe that does
//     not return locks it.)
//   - answered-in-time: Do returns after Timeout, and 100 ms if the function does
//     not heed its context; Submit after that, the bulkhead's MaxWait, and twice
//     QueueOptions.Timeout for the database.
//   - no-lost-payment: what Submit has answered with Queued or Done, and what was
//     enqueued by a transaction that committed, is made until the service has
//     answered, or is parked where a person finds it. Whatever dies, and whenever:
//     the caller, a worker, a server, a connection.
//   - charged-once, as far as this side can: each attempt of a request, in each
//     process, sends the same key, and what QueueOptions.Done does is committed
//     once, together with the mark.
//
// # What does not hold
//
//   - Charged once by itself. An attempt may have been carried out although its
//     answer is lost, and nobody on this side can find out. The service must know
//     its keys; see below.
//   - Call is called once, or by one process at a time. When a lease runs out
//     while somebody is at work after all, there are two.
//   - Order. A request that failed is overtaken.
//   - One circuit for all. Each process finds out for itself, and has its own
//     probes. A circuit shared by a fleet needs a lock that is held during the
//     call, which is one more thing to wait for.
//   - A function that never returns is given up, not ended: it keeps its goroutine
//     and its place in the bulkhead. When it holds all places, there is no probe
//     until one ends.
//   - Money within a time. A payment that was queued may be made hours later. If
//     that is worse than none, let the service refuse it by a time in the body.
//
// # What the caller must do
//
//   - Make the key once, where the payment is, and keep it; submit again with the
//     same one after an error or a crash. See [Request].
//   - Put all that the call needs into Body: the amount too. The order may have
//     changed when it is made.
//   - Heed the context in the function, and wrap errors with %w.
//   - Say by [Permanent] what another attempt cannot mend. What the service says
//     of the matter, as that the card has no money, is an answer.
//   - Watch [Stats]: Oldest says that payments are late, Parked that some wait for a
//     person.
//
// # What the payment service must do
//
//   - Charge once for each key, also when two requests with it come at the same
//     time, and answer the second as the first.
//   - Remember keys for longer than a request may be queued, parked ones included,
//     and compare the bodies.
//   - Answer 5xx, or not at all, only for what may be repeated.
//
// Go's own net/http also repeats a request with the header Idempotency-Key when a
// connection that was used before breaks before the answer: a call is not always one
// request.
//
// # In which order
//
// Retry outside, breaker, deadline inside:
//
//	for try := range 3 {
//		err = b.Do(ctx, call) // counts each try, and gives it the whole Timeout
//		if err == nil || errors.Is(err, breaker.ErrOpen) {
//			break
//		}
//		wait(try)
//	}
//
// With the retry inside, the breaker would see one failure where three calls were
// made, and a probe would be three; with the deadline outside, a call that hangs
// would not be known to have failed. Do not retry [ErrOpen]. A Queue is a retry of
// this kind, with a memory.
//
// A bulkhead stands beside: it bounds how many calls are under way, from the first
// moment, while a breaker learns only from calls that have ended, and with a Timeout
// of 3 s that is late. What it rejects says nothing about the service, so it does not
// count. Set Options.Bulkhead, and a call that was given up keeps its place until it
// has really ended.
//
// # What counts
//
// nil is a success, and so is what Options.IsSuccessful says. A caller that gives up
// (its context is cancelled) counts as neither. A caller whose own deadline comes
// first counts as a failure: if it did not, callers in a hurry would never find out
// that a service hangs.
//
// In an HTTP handler the context of the request is cancelled when the customer goes
// away. If customers have less patience than Timeout, all of their calls to a service
// that hangs count for nothing, and the circuit never opens: make Timeout shorter
// than their patience, or call with context.WithoutCancel.
//
// The rate is that of the calls that have ended within the window. Those under way
// are not in it, for a service that hangs has many. Mind that VolumeThreshold calls
// must fit into the window: one caller whose calls take 3 s each makes three in 10 s,
// and the circuit stays closed.
//
// And a rate looks back. The window holds the successes of better times, which came
// fast, while a service that hangs fails slowly: each place of the caller's fails once
// in Timeout. So it may take most of a window until the circuit opens. Meanwhile the
// bulkhead is what keeps the caller alive.
//
// # Events
//
// Options.OnStateChange is told of each transition and what has caused it, in order,
// one at a time, with no lock held. There is no goroutine behind it: whoever caused
// the transition delivers, and if somebody else is at it he delivers that one too. A
// circuit that is open becomes half-open by the next call, not by a clock.
//
// # Where it is queued
//
// The row is the truth, and the retry is its column next_attempt_at: a worker takes
// what is due by SKIP LOCKED, leases it for Lease, calls with no transaction open, and
// writes down the outcome. Its lease ends if it dies. The waits have full jitter, so
// that those who failed together do not come back together, and while the circuit is
// open nothing is taken at all. Being rejected counts as no attempt.
//
// Why not a delayed queue of RabbitMQ, a queue with a TTL and a dead letter exchange?
// Because the payment would be in two systems, and no order of writing to both
// survives a crash between; the row would be needed all the same, to know whether the
// payment was made. RabbitMQ is the place to tell others of the outcome: enqueue an
// event into an outbox in Done, and it is published if and only if the payment is
// marked as made.
//
// [Queue.Enqueue] stores a request in the transaction that stores the order, which
// closes the last gap: an order that exists, and whose payment nobody knows of.
//
// # Parked
//
// A request is parked in the same table when its error is Permanent, or after
// QueueOptions.Attempts. [Queue.ListParked] shows them, [Queue.Resume] queues them
// again. What kills the process that works on it is parked too, for an attempt counts
// when it begins.
//
// # What it costs
//
// A call through the breaker without a deadline allocates nothing and takes little
// longer than through gobreaker alone. The deadline costs more than the breaker: a
// context with a timer, and a goroutine, so that a function that does not heed the
// context holds up nobody; a few microseconds together. `make bench` measures it. A
// request through a Queue costs two commits.
//
// # Stopping
//
// When Run's context ends nothing new is begun, and attempts that have begun are
// finished and written down. What takes longer than StopTimeout is cancelled, and
// made again.
package breaker
