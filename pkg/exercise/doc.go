// Package exercise joins a graded answer and its judge.
//
// A notebook cell, or a test, calls a check such as
//
//	func TestRelay(t *testing.T) { outbox.CheckRelay(t, Relay) }
//
// and the check calls [Check]. What happens then depends on who runs the binary.
//
// Run by the learner, Check starts the judge, which is another binary: the tests
// of the pattern's package under solutions, built once and kept. The judge never
// links the answer. It executes the learner's binary again, many times, each
// time as a process that it can crash, and Check shows its verdict.
//
// Run by the judge, as a process under test, Check calls the answer: it connects
// to the addresses in DATABASE_URL, AMQP_URL and those of services, waits for calls
// on its control channel, and reports what the answer returned. One that is a
// server listens at [Process.Addr]. A report earns nothing. The judge looks at the
// tables and the queues, and at what services and a server's clients saw.
package exercise
