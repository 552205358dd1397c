// Package lab is a notebook's side of the course: it connects a cell to the
// notebook's own database and virtual host, runs functions of the cell as
// processes that can be crashed, and shows what came of it.
//
// A cell is a process that ends, so each cell opens the lab anew, and whatever
// must outlive a cell is in PostgreSQL or RabbitMQ:
//
//	l := lab.Open("01_outbox")
//	l.Fresh() // first cell only: forget all that earlier runs have left
//	l.SQL(`CREATE TABLE orders (id text PRIMARY KEY, customer text)`)
//	l.Queue("shipping", "order.#")
//
// A function with the signature of [Work] can be run as a process of its own,
// with all its connections passing through a proxy that reads along:
//
//	l.Run(placeOrder)                            // and draw the conversation
//	l.Run(placeOrder, lab.Kill("basic.publish")) // killed just before that message
//	l.Table("SELECT * FROM orders")              // what is there now?
//	l.Peek("shipping")
//
// A consumer is given its messages, several times over if need be, and a cell that
// counts does not draw:
//
//	l.Publish("order.placed", message, message)
//	l.Together([]lab.Work{consume, consume}, lab.Hold("COMMIT"))
//	l.Try(consume, lab.Kill("basic.ack"))
//	n := l.Int("SELECT count(*) FROM parcels")
//
// A function that calls HTTP services finds them at [ServiceURL]. The cell plays
// them, and faults aim at what is said to them by name:
//
//	l.Service("payments", payments) // an http.Handler
//	l.Run(pay, lab.Cut("201 POST /charges"))
//
// # How a function becomes a process
//
// Run executes the cell's own binary again, as the judge of a graded cell does.
// That process goes through the cell from its top as well, but everything this
// package offers does nothing there, until it comes to the same call of Run:
// then it calls the function, and ends. So what a cell does before a Run,
// beside calling this package, is done by each process.
//
// # When something fails
//
// A cell is no place for error handling: what fails ends the cell, with one
// sentence on standard error and exit status 1. An interrupt ends it too, and
// with it every process it has started. A [Lab] is for one goroutine.
package lab
