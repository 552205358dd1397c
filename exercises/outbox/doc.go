// Package outbox holds the graded exercises of the outbox pattern: their
// contracts, their starter answers and the checks that notebook cells and tests
// call.
//
// # What an answer is given
//
// A PostgreSQL database with two tables, and a RabbitMQ virtual host with one
// durable topic exchange, named events, to which the services that want the
// events have bound their queues:
//
//	CREATE TABLE orders (
//	    id          uuid   PRIMARY KEY,
//	    customer    text   NOT NULL,
//	    total_cents bigint NOT NULL,
//	    status      text   NOT NULL DEFAULT 'pending'
//	);
//	CREATE TABLE outbox (
//	    seq          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
//	    message_id   uuid        NOT NULL UNIQUE,
//	    aggregate_id text        NOT NULL,       -- the order's id
//	    type         text        NOT NULL,       -- such as order.placed
//	    payload      jsonb       NOT NULL,
//	    created_at   timestamptz NOT NULL DEFAULT now(),
//	    published_at timestamptz                 -- NULL: not published yet
//	);
//
// An answer may read and write both tables, and may make tables, functions and
// triggers of its own. In the virtual host it may declare the exchange events,
// and queues of its own whose names begin with "answer.". The pool has four
// connections. An answer may open more connections to the addresses in
// DATABASE_URL and AMQP_URL. Nothing else in its environment matters, and no file
// outlives its process.
//
// # How an answer is judged
//
// The answer runs as a process of its own. The judge kills it, cuts its
// connections, swallows what it sends, refuses what it publishes and fails its
// statements, at every step of its conversation with both servers. A process
// that has ended, for whatever reason, is started again, as a supervisor would
// do. Then the judge looks at the tables and the queue. It never looks at the
// code, the exit code or the output.
package outbox
