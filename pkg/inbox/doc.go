// Package inbox handles each message of a queue once, however often it arrives: the
// idempotent consumer, on RabbitMQ and PostgreSQL.
//
// # The problem
//
// A broker delivers a message until it is acknowledged. When a consumer dies after
// its work and before its ack, when an ack gets lost with a connection, when a
// publisher is not sure and publishes again, the message arrives twice, and the
// customer pays twice. Whoever acks before the work loses the message instead.
//
// Looking up whether a message is known, and then doing the work, does not help:
// two consumers look at the same time, and both find nothing. Nor does noting it
// down before the work, in a transaction of its own: when the work then fails, the
// next delivery counts as done.
//
// # The way out
//
// Note the message down in the same transaction as the effect, first, and let the
// database say whether it was there; ack when the transaction has committed:
//
//	c, err := inbox.New(pool, inbox.Options{
//		Consumer: "billing",
//		Queue:    "billing.orders",
//		Dial:     func(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, url) },
//		Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
//			_, err := tx.Exec(ctx, "INSERT INTO invoices …")
//			return err
//		},
//	})
//	if err != nil {
//		return err
//	}
//	return c.Run(ctx) // until ctx ends
//
// Before, once, [Migrate] makes the tables. A row of inbox_messages is the
// consumer's name and the message's ID. It is written by INSERT … ON CONFLICT DO
// NOTHING, and no row means a duplicate: it is acked, and the handler is not called.
// While the transaction of a twin is at work, the insert waits for its end, and
// then does what is right: nothing if it was committed, all if it was not.
//
// [Once] is that step alone, for those who have a consumer of their own.
//
// # What holds
//
// Whatever dies, and whenever: the consumer, a server, a connection.
//
//   - No lost message: what has not had its effect, nor been put aside where a
//     person finds it, is not acked, and so comes again.
//   - One effect: what Handle does through its transaction is committed once for
//     each ID and consumer, in as many processes as there are, for as long as
//     Options.Retention.
//   - Nobody pays for another: what fails in a batch is found, and the others are
//     committed. A lost connection, a deadlock or a failed serialization does not
//     count against any message.
//   - No wrong ack: a delivery tag is a number within one channel. What was
//     delivered over a channel that is gone is forgotten, not acked over the next.
//
// # What does not hold
//
//   - Handle is called once. It is called as often as it takes for one commit to
//     succeed. What it does outside of its transaction happens each time; see below.
//   - Order, unless Options.Key is set; and with it only as said below.
//   - Messages that are the same and have different IDs are different messages. The
//     ID must be made where the event is, and kept: one made of the clock, or anew
//     for each try to publish, is none. One made of the content takes two equal
//     orders for one.
//   - What arrives again after the retention is new.
//
// # What the caller must do
//
//   - Publish with a message ID that is the same for each copy, as package outbox
//     does. Or say by Options.ID where it is.
//   - Have all effects through tx. Not commit it, not take a second connection of
//     the same pool meanwhile.
//   - Wrap errors of pgx with %w.
//   - Give the same Consumer to all processes that share the work, and never
//     change it: by another name all messages are new.
//   - Watch [Stats]: Lag says that messages are late, Waiting that some are parked.
//
// # Batches
//
// Most of what a message costs is the commit. With Options.Batch up to so many
// messages share one transaction and one INSERT, and one ack where no message
// before them is still at work. Against one at a time that makes some ten times as
// many messages a second.
//
// When one fails, the transaction is rolled back, and what stood before it, it
// alone, and what stands behind it are tried each in a transaction of its own.
// When no one is known to be at fault, as when the commit fails, it is done by
// halves. So a batch of which one message is bad makes each handler run twice at
// the most, and only what fails alone has failed. Savepoints would spare the second
// run and cost two round trips for each message of each batch.
//
// The locks that handlers take are held to the end of the batch. Two batches that
// update the same rows in different orders deadlock, which is mended by itself and
// costs time: use Options.Key for what they meet at.
//
// # Failures
//
// A message whose handler fails, panics or takes longer than Options.Timeout is
// tried again after a growing wait, and parked after Options.Attempts, or at once
// if the error is [Permanent]. A message without a usable ID is parked at once.
//
// Parked means stored in the table inbox_parked, whole and with the reason, and then
// acked. Like the rest of the package that loses nothing: it is one database, and
// the ack follows the commit. [Consumer.Replay] handles what is there once more, by
// the same rules. If a parked message comes again by the queue and succeeds, it is
// there no longer.
//
// Options.DeadLetter rejects instead, for those who have a dead letter queue and
// tools for it. It is not the default because a broker drops what is rejected if
// its queue has no dead letter exchange, and a consumer cannot ask. Dead lettering
// of a classic queue can also lose messages when the broker dies at that moment;
// quorum queues have x-dead-letter-strategy=at-least-once.
//
// A message that waits for another try is in hand and takes one of Prefetch places.
// If most messages fail, the others wait for them: that is the time to mend
// something. For waits of minutes and hours use queues that delay.
//
// What kills the process that handles it is beyond these rules: nobody is left to
// count. A quorum queue with x-delivery-limit ends that; the limit should be high,
// for it counts each delivery that was not acked, whoever was at fault.
//
// # Order
//
// With Options.Key, messages of one key are handled one after the other in the
// order of arrival. Those of other keys do not wait. While a message waits for
// another try, its key waits with it. When it is parked, its key goes on: who
// cannot have that checks the order in the handler, by a number in the message.
//
// That is the order of arrival in one consumer. In the order of publishing they
// arrive only if there is just one at a time: declare the queue with
// x-single-active-consumer, start as many processes as you like, and one works
// while the others stand by. Otherwise the broker gives one of them the first
// message of a key and another the second. A consumer with a Key keeps its place in
// the queue until its last ack when it stops, so that its successor does not
// overtake it.
//
// When a connection breaks, the broker puts back what was not acked, at its old
// place. The consumer waits for what is at work before it consumes again, so the
// order holds here too. It does not hold against a successor which the broker makes
// the active consumer when it takes this one for dead, and this one is at work:
// then the effect of one message may be committed after that of the next. Nor
// where a message is published twice and the copy comes first.
//
// # Retention
//
// A row must be there for as long as a duplicate may come. Deleting old rows one by
// one costs as much as writing them, and an index on time besides. Dropping a
// partition costs nothing. But partitions by time have a trap: a unique index over
// partitions holds the partition key, so of two twins each can have its row, in
// partitions that meet at midnight. Looking into the other partitions before does
// not help if the twin there is not committed yet.
//
// So the rows are in four partitions which are told apart by a number, not by the
// time, the generations. One is written to. All transactions that write hold a
// shared lock; the next generation begins under the exclusive one, when nobody is at
// work, so what is in the older ones is committed and can be found by looking. The
// oldest is then truncated and becomes the current one. A generation lasts for a
// third of the retention, so that a row lives for between one and one and a third
// of it. The price is three more looks into an index for each message, and a short
// halt when a generation begins: of as long as the longest transaction at work, at
// first 100 ms at the most, longer if that was in vain.
//
// How long is long enough? Longer than the longest time for which a message can be
// anywhere on its way: in the queue while all consumers are down, in the outbox
// while the relay is, in dead letters, and in your plans to replay.
//
// # Effects outside of the database
//
// A call to another system cannot be part of the transaction. It may have happened
// although its answer is lost, and nothing on this side can find out: not before
// the commit, for the commit may fail after the call; not after it, for the process
// may die between. So no consumer makes an HTTP call happen exactly once by itself.
// What can be done is to repeat it until it is known to have succeeded, and to let
// the other side see that it is a repetition:
//
//	Before: func(ctx context.Context, d inbox.Delivery) (any, error) {
//		req.Header.Set("Idempotency-Key", d.IdempotencyKey())
//		…
//	},
//	Handle: func(ctx context.Context, tx pgx.Tx, d inbox.Delivery) error {
//		charge := d.Before.(Charge)
//		_, err := tx.Exec(ctx, "INSERT INTO charges …")
//		return err
//	},
//
// The key is made of the consumer and the message ID, so it is the same in every
// attempt and every process. Options.Before is called with no transaction open:
// a slow call holds no lock and no connection. It is not called for messages that
// are known to be handled; for a twin that is at work elsewhere it may be, with
// the same key. Its answer goes to Handle, which commits it with the row.
//
// If the other side knows no keys, choose: at least once, by Before or in Handle,
// or at most once, by writing the intent in Handle and calling after Run's hook
// Handled, where a crash loses the call. What it does not offer nobody can add.
//
// To publish messages as an effect, enqueue them into an outbox through tx.
//
// # Stopping
//
// When Run's context ends, nothing new is begun, transactions that have begun are
// finished and acked, and the channel is closed, upon which the broker puts the rest
// back. What takes longer than Options.StopTimeout is cancelled, rolled back, and
// comes again.
package inbox
