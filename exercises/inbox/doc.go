// Package inbox holds the graded exercises of the idempotent consumer: their
// contracts, their starter answers and the checks that notebook cells and tests
// call.
//
// # What an answer is given
//
// A RabbitMQ virtual host with one durable queue, payments, and a PostgreSQL
// database with three tables:
//
//	CREATE TABLE accounts (
//	    id            text   PRIMARY KEY,
//	    balance_cents bigint NOT NULL DEFAULT 0
//	);
//	CREATE TABLE ledger (
//	    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
//	    account_id text   NOT NULL REFERENCES accounts,
//	    cents      bigint NOT NULL,
//	    tx         xid8   NOT NULL DEFAULT pg_current_xact_id() -- the transaction that wrote it
//	);
//	CREATE TABLE inbox (
//	    consumer   text        NOT NULL,
//	    message_id text        NOT NULL,
//	    handled_at timestamptz NOT NULL DEFAULT now(),
//	    PRIMARY KEY (consumer, message_id)
//	);
//
// The services that share the database remember in inbox what they have handled,
// each under its own name: an audit service has handled most of the messages
// already. An answer's name is payments.
//
// To book a payment is to raise the account's balance_cents by its cents and to
// add one row to ledger, both or neither.
//
// An answer may read and write all three tables, and may make tables, functions
// and triggers of its own. In the virtual host it may use the queue payments, the
// exchange dead, and queues of its own whose names begin with "answer.". The pool
// has four connections. An answer may open more connections to the addresses in
// DATABASE_URL and AMQP_URL. Nothing else in its environment matters, and no file
// outlives its process.
//
// # How an answer is judged
//
// The answer runs as a process of its own. The judge kills it, cuts its
// connections, swallows what it sends and fails its statements, at every step of
// its conversation with both servers. A process that has ended, for whatever
// reason, is started again, and what it had not acknowledged is delivered again.
// Then the judge counts the money. It never looks at the code, the exit code or
// the output.
package inbox
