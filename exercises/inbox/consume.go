package inbox

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/exercise"
)

// Consume is the starter answer of inbox/consume.
//
// Consume takes the messages of the queue payments and books each payment once,
// until ctx ends; then it returns nil within two seconds. Two processes run it at
// the same time.
//
//   - A message has a message ID, and a body such as {"account":"a1","cents":1200}.
//     To book it is to raise the account's balance_cents by its cents and to add
//     one row to ledger (account_id and cents), both in one transaction: balance
//     and ledger agree at any time.
//   - A message may be delivered again, and may have been sent twice with the same
//     message ID and body, even at the same moment to both processes, or a year
//     later. It is booked once all the same. Two payments that differ by their
//     message ID only are two payments; it is any text, of which case counts. Your
//     consumer's name in the table inbox is payments.
//   - A message that can never be booked goes to the dead letters, and no other
//     does: one without a message ID; one whose body is not JSON, or has something
//     behind it; one whose cents are no whole number; one whose account does not
//     exist. You may rely on this: what is JSON has both fields, and no zero byte
//     in them. Reject it without requeue, and the queue's dead-letter exchange,
//     dead, gets it; or publish it there yourself, with any routing key.
//   - Every message is acknowledged or rejected once it is dealt with, and not
//     before, so that it is neither lost nor comes back.
//   - Book several at a time, at least four: while one or two payments wait because
//     somebody has locked the row of their account, the payments of other accounts
//     are booked.
//
// Consume may return an error at any time, when a connection is lost for example:
// it is then started again, in a new process. It must not get stuck: within two
// seconds of a broken connection it has returned or goes on with the work. A
// server that stops answering is different: it may then wait, and be killed.
func Consume(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	return exercise.ErrNotImplemented // your code
}

// CheckConsume judges an answer to inbox/consume and fails t if it does not pass.
func CheckConsume(t testing.TB, consume func(context.Context, *pgxpool.Pool, *amqp.Connection) error) {
	t.Helper()
	exercise.Check(t, "inbox/consume", consumer(consume))
}

// Batch is the starter answer of inbox/batch.
//
// Batch keeps the contract of [Consume] with three differences. Only one Batch
// runs at a time, and may book one message after the other. The payments of one
// account stand in ledger, in the order of seq, as they came into the queue. And
// it is thrifty with transactions: when fifty payments or more wait, it books at
// least five in a transaction, on average, also when a few messages among them can
// never be booked. (Crashes and errors of the servers excuse it.) One message that
// can never be booked does not hold up the others of its transaction.
func Batch(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	return exercise.ErrNotImplemented // your code
}

// CheckBatch judges an answer to inbox/batch and fails t if it does not pass.
func CheckBatch(t testing.TB, batch func(context.Context, *pgxpool.Pool, *amqp.Connection) error) {
	t.Helper()
	exercise.Check(t, "inbox/batch", consumer(batch))
}

func consumer(consume func(context.Context, *pgxpool.Pool, *amqp.Connection) error) exercise.Handler {
	return func(ctx context.Context, p *exercise.Process, _ json.RawMessage) error {
		db, err := p.Postgres(ctx)
		if err != nil {
			return err
		}
		conn, err := p.Broker()
		if err != nil {
			return err
		}
		return consume(ctx, db, conn)
	}
}
