// Package outbox publishes the events of a service without losing any and
// without announcing what did not happen: the transactional outbox, on
// PostgreSQL and RabbitMQ.
//
// # The problem
//
// A service changes its database and tells others by a message. Whatever it does
// first, it can die before it does the second: then the order exists and nobody
// hears of it, or others act on an order that was never stored. No sequence of
// the two steps helps, for they are in two systems.
//
// # The way out
//
// Store the event in the same transaction as the change:
//
//	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
//		if _, err := tx.Exec(ctx, "INSERT INTO orders …"); err != nil {
//			return err
//		}
//		_, err := outbox.Enqueue(ctx, tx, outbox.Event{AggregateID: order.ID, Type: "order.placed", Payload: order})
//		return err
//	})
//
// and let a relay, in this process or in another, publish what is committed:
//
//	relay, err := outbox.NewRelay(pool, outbox.Options{
//		Dial: func(ctx context.Context) (*amqp.Connection, error) { return broker.Dial(ctx, url) },
//	})
//	if err != nil {
//		return err
//	}
//	return relay.Run(ctx) // until ctx ends
//
// Before both, once, [Migrate] makes the tables, and somebody the exchange and a
// durable queue. Until they are there the relay publishes nothing, and says so:
//
//	err := outbox.Migrate(ctx, pool)
//	err = ch.ExchangeDeclare("events", "topic", true, false, false, false, nil)
//	_, err = ch.QueueDeclare("warehouse", true, false, false, false, nil)
//	err = ch.QueueBind("warehouse", "order.*", "events", false, nil)
//
// The relay publishes each event with its type as routing key, its ID as message ID
// and its aggregate's ID in the header [AggregateHeader], persistent and mandatory,
// and marks its row when the broker has confirmed it. A whole service is in
// pkg/crash/example/shop.
//
// # What holds
//
// Whatever dies, and whenever: the service, the relay, a server, a connection.
//
//   - No lost event: every event whose transaction committed is published, and
//     the broker has taken responsibility for it before its row is marked.
//     Someone is bound to get it: an event that no queue is bound for is not
//     published but held.
//   - No phantom: an event whose transaction did not commit is never published.
//   - Order per aggregate: the events of one aggregate first arrive in the order
//     of seq, whichever relay publishes them and however many run. An event is
//     not sent before the one before it is confirmed. (With Options.Pipeline it
//     is; see there for the price.)
//   - Quiet: what was published is not published again, once its row is marked.
//
// # What does not hold
//
//   - Once only. An event is published again when the relay dies, or loses a
//     connection, between the confirm and the commit of the mark. Nothing on this
//     side can help: the confirm itself may be what was lost. The duplicate has
//     the same message ID.
//   - Order between aggregates.
//   - Order among events of one aggregate that were written by transactions that
//     overlap: seq is drawn at the INSERT, and the later number may commit first.
//   - Speed for a single aggregate: one event per round trip to the broker,
//     since each waits for the confirm of the one before, unless Options.Pipeline
//     is set. Different aggregates do not wait for each other.
//
// # What the caller must do
//
//   - Make consumers idempotent: remember the message ID in the same transaction
//     as the effect, and skip what is known.
//   - Lock the aggregate before enqueuing an event of it. Whoever updates the
//     aggregate's row in the same transaction has done so.
//   - Declare the exchange, and bind durable queues before the first event.
//   - Watch [Stats]: Lag says that events are late, Held that some are refused,
//     SlotLag that change data capture keeps the server's log.
//
// # Polling, NOTIFY or change data capture
//
// Options.Source says how the relay learns of new events.
//
// [Polling] asks for pending rows every 100 ms. It needs nothing and its latency
// is half of that, on average. Start here.
//
// [Notify] is woken by a trigger when events are committed: a few milliseconds.
// The trigger sends one NOTIFY for all that commit in the same moment, because
// NOTIFY makes commits queue up, and the relay does not go to sleep while a
// commit is under way that might rely on another's. It polls as well, every
// 500 ms, since a NOTIFY is lost with the connection that listens.
//
// [CDC] reads new rows out of the write-ahead log: the shortest way, without a
// query per event. It asks more of the operator: wal_level=logical, a role that
// may replicate, and an eye on the slot. A slot keeps the server's log until its
// reader confirms it, and fills the disk if nobody reads: drop the slot when the
// relay is retired for good. The relay confirms a position once all before it is
// recorded in the table, so a restart goes on where it was; it tells its position
// when nothing happens too, so that other tables' traffic does not pile up. The
// table stays the truth: at each start what is pending there is published first,
// so a lost slot or the change from another source loses nothing.
//
// # Several relays
//
// Run two, for availability. By polling they divide the work by a hash of the
// aggregate's ID: each transaction takes an advisory lock on its partition, for
// as long as it works on it, and so another takes over as soon as the server
// knows that the first is gone. With CDC the slot itself admits one reader, and
// the other stands by.
//
// SELECT … FOR UPDATE SKIP LOCKED, the usual advice, does not keep the order:
// it lets the second relay take an aggregate's second event while the first is
// still working on its first.
//
// # What is refused
//
// A message may come back because no queue is bound for it, be nacked because a
// queue is full, or make the broker close the channel because it is too large.
// Its row stays pending, and the table outbox_held says until when its aggregate
// is held and why. The events behind it wait, so that their order is kept; all
// other aggregates go on. The wait grows from MinRetry to MaxRetry. To have an
// aggregate tried at once, delete its row from outbox_held. To give an event up,
// delete its row from outbox.
//
// # Keeping it small
//
// Marked rows are deleted after a day, in small batches, or at once with
// Options.Delete, which is also a little faster. Either way the table sees much
// traffic: let autovacuum visit it often.
package outbox
