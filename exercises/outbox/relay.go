package outbox

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/exercise"
)

// Relay is the starter answer of outbox/relay.
//
// Relay publishes every committed row of outbox to the exchange events, until
// ctx ends; then it returns nil. Only one Relay runs at a time. Rows are
// inserted all the while, by transactions that may take long to commit, so that
// a row with a lower seq can appear after one with a higher seq. Transactions
// that insert events of the same aggregate_id do not overlap.
//
//   - Each message has the row's type as routing key, its message_id as message
//     ID, its payload as body and application/json as content type, and is
//     persistent.
//   - An event must not be lost: not by a crash, a lost connection, a broker that
//     refuses it (basic.nack), or because no queue is bound to the exchange yet
//     (publish mandatory; a message that comes back was not delivered: keep it
//     and try again); others may wait meanwhile.
//   - Events of one aggregate_id first arrive in the order of seq, also when the
//     broker refuses or returns one of them: the next one of that aggregate must
//     not overtake it. An event may arrive more than once.
//   - Once an event is published its row gets a published_at, or is deleted.
//     When there is nothing left to publish, nothing is published.
//
// Relay should publish a new row within 100 milliseconds. It may return an error
// at any time, when a connection is lost for example: it is then started again,
// in a new process. It must not get stuck: within two seconds of a broken
// connection it has returned or goes on with the work. A server that stops
// answering is different: it may then wait, and be killed.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	return exercise.ErrNotImplemented // your code
}

// CheckRelay judges an answer to outbox/relay and fails t if it does not pass.
func CheckRelay(t testing.TB, relay func(context.Context, *pgxpool.Pool, *amqp.Connection) error) {
	t.Helper()
	exercise.Check(t, "outbox/relay", relayHandler(relay))
}

// Relays is the starter answer of outbox/relays.
//
// Relays keeps the contract of [Relay], but several processes run it at the same
// time over the same tables: three at first, and each is started again when it
// ends. The events of one aggregate_id still first arrive in the order of seq,
// whichever process publishes them. When a process dies or stops answering, the
// others take over its work within two seconds of the server's noticing.
func Relays(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	return exercise.ErrNotImplemented // your code
}

// CheckRelays judges an answer to outbox/relays and fails t if it does not pass.
func CheckRelays(t testing.TB, relays func(context.Context, *pgxpool.Pool, *amqp.Connection) error) {
	t.Helper()
	exercise.Check(t, "outbox/relays", relayHandler(relays))
}

func relayHandler(relay func(context.Context, *pgxpool.Pool, *amqp.Connection) error) exercise.Handler {
	return func(ctx context.Context, p *exercise.Process, _ json.RawMessage) error {
		db, err := p.Postgres(ctx)
		if err != nil {
			return err
		}
		conn, err := p.Broker()
		if err != nil {
			return err
		}
		return relay(ctx, db, conn)
	}
}
