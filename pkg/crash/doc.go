// Package crash runs a program against a real PostgreSQL, a real RabbitMQ and the
// HTTP services that it calls, crashes it at every step of its conversation with
// them, and says what it lost.
//
// The program is any executable that takes its addresses from DATABASE_URL and
// AMQP_URL. It is started behind a [wire.Proxy], which understands what they say.
// A first run without faults shows which messages the program
// exchanges. Then it is run again and again, and each time one fault strikes at
// one of those messages: the process is killed there, its connection breaks, the
// stream goes dark, the broker refuses the publish. A program that has ended is
// started again, as a supervisor would do. When its work is finished, what the
// tables and queues hold is checked from outside.
//
// # What to write
//
// A [Spec] says what the work is and what must hold:
//
//   - Schema and Grants make the tables of an [Arena], the database and virtual
//     host that one run after another uses;
//   - Scenario returns a [Scenario] for each run: it resets the tables, gives
//     the processes their work, says when all work is done, and checks the
//     invariants;
//   - Faults names the kinds of fault to try, Invariants the promises.
//
// [Judge] does the rest and returns a [Verdict]. See the example.
//
// # Crash your own service
//
// Run `crashcourse up -- go test -v -run ExampleJudge_service ./pkg/crash`, and
// begin with a copy of what it runs: example_service_test.go crashes an HTTP
// service, the program in example/shop, while a client places orders.
//
// The scenario plays whoever uses the service. {{addr}} in the [Program]'s
// arguments or environment becomes an address to listen on, and [Process.Addr]
// says which. It stays the same when the service is started again, so a client
// only has to ask again, as real ones do:
//
//	program := crash.Program{Path: "./shop", Args: []string{"-addr", "{{addr}}"}}
//	verdict, err := crash.Judge(ctx, servers, spec, program, crash.Options{})
//
// What the first hour shows:
//
//   - Have a run without faults do each kind of thing the service does a few
//     times, and no more: each message is a point.
//   - Put the tables into Schema. What the service makes itself, by migrations, is
//     dropped before each run, and each of its statements is a point.
//   - List the service's Exchanges and Queues: to declare others is refused.
//   - The sessions of [Arena.DB] find public.orders, but not orders: a table that
//     the program makes must not be taken for the real one.
//   - Done is asked while the service works. Look first at what has to come first,
//     such as the client's answer, and then at what follows from it.
//   - Requests to the service are not messages of its conversation with the
//     servers: nothing strikes at them, and the trace does not show them. Requests
//     that the service sends to other services are: see below.
//   - To repeat one failing run, give [Options] the verdict's seed and, read by
//     [ParseSchedule], its Failure.Schedule. What the service printed is in Output.
//   - view.Text prints a verdict, view.Document makes a page of it.
//
// # Services that the program calls
//
// A program that calls a payment service has [Spec.Services] "payments", and its
// scenario plays that service: it is [Serving]. The program takes the address from
// SERVICE_PAYMENTS_URL. Each request and each response is a point like any other:
//
//	func (s *shopping) Services() map[string]http.Handler {
//		return map[string]http.Handler{"payments": http.HandlerFunc(s.charge)}
//	}
//
// The sweep kills the program before a request that may change something and after
// it, cuts the connection, lets either direction go dark, answers 503 in the
// service's place, and turns a response into a 502. What the service holds is a part
// of what outlives the program. While a service is at work on a request the run does
// not count as idle; it ends when six seconds bring no progress.
//
// # How it finds the points
//
// A [wire.Point] says where a message passed: which process, which of its
// connections, which direction, and the how-manieth step of that stream.
// Interleaving with other streams does not change it. Where a program opens
// connections in an order that changes from run to run, a point may not be
// reached; the message is then looked for by its kind.
//
// What outlives a killed process depends only on the acts that had passed to the
// servers before: commits, publishes, acknowledgements, calls. So [Quick] kills once
// between each two acts; where several processes do the same work, at four acts of
// each kind. [Full] tries every step that acts or answers, and kills
// a second time during each recovery. A crash whose outcome (rows, queues) was
// recovered from before is not recovered from again. [Unpruned] takes none of
// these shortcuts, and has to come to the same verdict.
//
// # What a verdict is worth
//
// A failing verdict is a schedule that really happened, with its trace. It is
// never a guess: only "the work was not finished" depends on a bound of time,
// and such a run is made once more with twice the time before it counts. A
// passing verdict says that the faults in the list did no harm at the points in
// the list. When the servers or the machine get in the way, the verdict is
// [Unjudged].
//
// # What holds an untrusted program
//
// On Linux each process has its own group, a new empty folder as home and
// temporary folder, and an environment with nothing but what it needs. Where the
// judge is root, it runs as a user that owns nothing. Its output, memory, number
// of tasks and time are bounded, and what it leaves behind, daemons included, is
// killed with it. Its database role and broker user have no rights beyond its
// arena. It is not in a sandbox: it can reach the network and read what any user
// may read, and two of its lives can meet in a world-writable folder. Do not run
// programs of people you do not trust without one.
//
// On systems other than Linux the group, the folder and the environment are what
// there is.
package crash
