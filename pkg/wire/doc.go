// Package wire is a debugger for wires: a proxy that stands between a process
// and its servers, PostgreSQL, RabbitMQ and HTTP services, understands what they
// say to each other message by message, and can hold, drop, fail or cut at any of
// them.
//
// It answers the question that no unit test answers: what is left behind when
// the process dies, or a connection breaks, exactly here?
//
// # A first look
//
// A [Proxy] knows the servers. A [Lane] gives one process addresses of its own to
// dial in their place. Whatever the process then does is recorded:
//
//	proxy, err := wire.New(wire.Config{Postgres: "127.0.0.1:5432", AMQP: "127.0.0.1:5672"})
//	lane, err := proxy.Lane()
//	// Let the process dial lane.Postgres() and lane.AMQP().
//	for _, m := range proxy.Trace().Messages {
//		if m.Step {
//			fmt.Println(m) // p1.pg1>1 BEGIN
//		}
//	}
//
// A process that calls HTTP services finds each of them by its name:
//
//	proxy, err := wire.New(wire.Config{Services: map[string]string{"payments": "127.0.0.1:8080"}})
//	lane, err := proxy.Lane()
//	base := "http://" + lane.Service("payments")
//
// # Messages, steps and points
//
// Each protocol message becomes a [Message] with the name that people give it:
// COMMIT, INSERT outbox, basic.publish order.placed, basic.ack ≤3, POST /charges,
// 201 POST /charges. Some are steps: moments at which it makes a difference whether the process dies before
// or after. The others are recorded between them: Parse, Bind, rows, the
// handshakes, heartbeats.
//
// Steps towards PostgreSQL are Query, Execute, CopyDone, CopyFail and
// FunctionCall, and a Sync that commits writes made outside a transaction block.
// Steps back are what ends a statement, errors and notifications. An empty query,
// which pools send as a ping when they feel like it, is none. In AMQP every
// method is a step but those of the connection; a publish or deliver is one
// message with its header and body. In HTTP each request is one, and each response
// but an interim one (100 to 199), with its head and body.
//
// A [Point] says where a message passed, in coordinates that do not change when
// the streams of a run interleave differently: process, protocol, connection,
// direction, and the number of steps in that stream. "p1.pg1>5" is the fifth
// step that process 1 sent on its first PostgreSQL connection. The connections to
// all services are counted together, in the order in which they first say
// something; Message.Service tells which service it is.
//
// Further rows of one result, the parts of a COPY, repeated heartbeats and the
// server's parameters go into the entry of the first of them, so that a trace
// stays readable: its Detail then counts them (×17) and its Size is their sum.
// Nobody is asked about the further ones.
//
// [Effect] tells what a message may do that outlives the process. It is found by
// looking at SQL, not by running it: a SELECT is taken to read unless it calls
// pg_notify, or is nothing but a call of a function that is not known to be
// harmless; DO, CALL and EXECUTE are taken to write. In a text of more than
// 64 KiB only the start is looked at. Of an HTTP request the method tells: GET,
// HEAD, OPTIONS and TRACE read, and any other is a [Call].
//
// A Detail shows the SQL or the start of a body. Of an HTTP head it shows the
// headers Idempotency-Key, Idempotent-Replayed and Retry-After, and no other:
// they may be secrets, as the query may.
//
// # Faults
//
// [Config.Decide] is asked about every message before it is forwarded, and
// answers with an [Action]. The zero Action passes. The rest is in [ActionKind]:
//
//   - [Freeze] is the wire's half of kill -9. No byte that was not decided
//     before reaches a server, on any connection of the process, and nothing
//     reaches the process. Kill the process then, and [Lane.Close] lets the
//     servers find out.
//   - [Cut] breaks one connection while the process lives. At "COMMIT done"
//     towards the client it makes the ambiguous commit: done, and nobody knows.
//   - [Blackhole] swallows a stream silently. It shows what a kill cannot: a
//     program that takes "written to the socket" for "received".
//   - [Nack] has a publish refused, [Fail] a statement or a request, [Shutdown]
//     announces the end of the server, [Duplicate] hands over a copy of a publish
//     for the caller to publish again, [Delay] takes its time.
//   - [Reject] is Nack by a broker in a hurry: the refusal overtakes the confirms
//     of earlier publishes, which are then told in one.
//   - [Hold] waits until it is told what to do: that is stepping.
//
// [Lane.EndIdle] is the one that strikes at no message: it ends the sessions of a
// process that are idle, and with them the locks that they hold.
//
// What Fail raises in PostgreSQL is raised by the server itself, so that the
// transaction is in the state it would be in. A failed COMMIT rolls back. An HTTP
// request that fails never reaches its service, and the proxy answers 503; at a
// response Fail says 502 in its place, so that what was done looks undone. Nack lets the broker
// drop the message and turns its confirm into a refusal, so that delivery tags
// stay as they are.
//
// # One order over all servers
//
// Decide is called under one lock for all streams of all lanes, and the message
// is forwarded under that lock. So what has passed at any moment is a prefix of
// one sequence over all servers, and [Trace] is that sequence. Forwarding only
// fills a buffer; it is written out after the lock is left, so a peer that does
// not read holds up nothing but its own connection.
//
// # Ending a lane
//
// [Lane.Close] returns when the servers have dealt with all that was forwarded
// and have ended the sessions: then locks are free, transactions rolled back,
// replication slots unused, and unsettled deliveries back in their queues. There
// is nothing to wait for after it, and no sleep needed before looking.
//
// Of a service the proxy can know two things: that it has answered, and that it
// has closed the connection. Close gives it a quarter of a second to answer, tells
// it then that the client has gone, and waits until it closes the connection. With
// net/http the handler has returned by then. The context of Close bounds all that.
//
// A broker is asked to close the connection, in the client's name, for it deals
// with all earlier frames first; a broken connection would end its channels at
// some moment before that. Two lanes whose sessions wait for each other's locks
// have to be closed at the same time.
//
// # What it does not do
//
// It does not decrypt: requests for TLS are refused (sslmode=require fails,
// sslmode=prefer goes on without), and the servers are spoken to without it. Who
// begins with TLS (sslnegotiation=direct, amqps) gets a TLS alert, and who speaks
// AMQP 1.0 the header of 0-9-1.
//
// A client of a service that speaks TLS gets the
// alert too, one that begins with HTTP/2 gets 505, and what is no HTTP/1.1, or not
// strictly so, 400. An upgrade to another protocol passes as a request, for most
// services ignore it; where one agrees the connection is cut.
//
// PostgreSQL messages, AMQP bodies and HTTP messages over 64 KiB are decided on
// their first part, and the rest streams through; a freeze in the middle leaves
// the server with a part of a message, which it ignores. An HTTP message is
// decided on its head where the rest comes only later: a request that expects to
// be told to continue, a stream of events, a response that ends with its
// connection. A client that closes its half of a connection is taken to be gone.
//
// A connection whose bytes make no sense is cut, and the trace says why. Memory
// does not depend on the lengths that peers claim.
//
// Replication streams pass: their messages are named (wal commit, standby
// status) but are no steps. A cancel request passes as connection 0. While a
// message is held the proxy sends AMQP heartbeats in its sender's place; the
// standby status of a replication client has no such stand-in, so a hold of more
// than wal_sender_timeout ends that connection.
//
// # What it costs
//
// `go test -bench Compare ./pkg/wire` runs the same small messages direct and
// through a proxy, in turns. On two busy cores a query that takes next to no time
// in the server kept 60 to 75 percent of its rate, one after the other, and
// confirmed publishes 78 to 95 percent: the way there and back grows by two
// wake-ups, some 30 to 60 µs.
package wire
