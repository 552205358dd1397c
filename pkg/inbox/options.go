package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Options are the options of a [Consumer]. Consumer, Queue, one of Handle and
// HandleBatch, and one of Conn and Dial are needed; every other field may be left zero.
type Options struct {
	// Consumer names who handles the messages: a message is handled once by each
	// name. Processes that share the work share the name. A new name begins anew.
	// 1 to 255 bytes of UTF-8.
	Consumer string
	// Queue is consumed from. It must exist; until it does, Run tries again.
	Queue string

	// Conn is a connection to consume over. It stays the caller's: the consumer
	// opens channels on it and closes those. When it is closed, Run ends with
	// [ErrConnClosed].
	Conn *amqp.Connection
	// Dial makes the connection to consume over, and makes it again when it is
	// lost. The consumer closes it. Do not publish over it: the broker may stop
	// reading from connections that publish, acks included. Leave
	// amqp.Config.Recovery unset, or Run refuses the connection: a channel that
	// the library has recovered counts delivery tags anew, and an ack of an old
	// delivery would ack another message.
	Dial func(ctx context.Context) (*amqp.Connection, error)

	// Handle has the effect of a message, through tx and nothing else of this
	// database. tx commits when Handle has returned nil. It must not commit or
	// roll back tx itself, nor take a second connection from the same pool: all
	// may be in the hands of others who wait for the same. An error undoes what
	// it did; wrap that of pgx with %w, so that a conflict of transactions is
	// known for what it is. See [Permanent].
	//
	// It may be called several times for a message, by several goroutines at once
	// for different ones, and with tx holding what was done for other messages of
	// the same batch.
	Handle func(ctx context.Context, tx pgx.Tx, d Delivery) error
	// HandleBatch takes the place of Handle, for effects that can be had of many
	// messages by one statement. It is called once in a transaction, with those of
	// the batch that are new, in order of arrival, at least one and no two with the
	// same ID. What is said of Handle holds for it. When it fails, the halves of
	// the batch are tried, down to the single message, which alone counts as
	// failed: so [Permanent] is of use only then, and does no harm before.
	HandleBatch func(ctx context.Context, tx pgx.Tx, batch []Delivery) error
	// Before, if set, is called before the transaction begins, for messages that
	// are not known to be handled. It is the place for what takes long and is not
	// in the database, such as an HTTP call; what it returns is in
	// Delivery.Before when Handle is called. It is called again when anything
	// after it fails: make the call with [Delivery.IdempotencyKey]. An error, or
	// [Permanent], counts like one of Handle.
	Before func(ctx context.Context, d Delivery) (any, error)
	// Key, if set, says which messages must be handled one after the other, in the
	// order of arrival: those with the same key. Others do not wait for them.
	// Empty means that the message needs no order. See the package's documentation
	// for what order means with several consumers.
	Key func(d Delivery) string
	// ID says which messages are the same. It must say the same of a duplicate,
	// wherever and whenever it arrives. An error, or an ID that is empty, longer
	// than 255 bytes or no text, has the message parked. Nil: the property
	// message-id.
	ID func(d amqp.Delivery) (string, error)

	// Concurrency is how many transactions work at the same time, each over a
	// connection of the pool. Zero: 2.
	Concurrency int
	// Batch is up to how many messages are handled in one transaction. It takes
	// those that are there and does not wait for more. Zero: 1. At most 10,000.
	Batch int
	// Prefetch is how many messages the consumer holds at a time, those that wait
	// for another try included. Zero: Concurrency times twice Batch or 10,
	// whichever is more. At least Concurrency × Batch, at most 65,535.
	Prefetch int

	// Attempts is how often a message may fail before it is parked. Failures that
	// are not its fault, as of a lost connection, do not count. Counting begins
	// anew when the message is delivered anew. Zero: 8, which with the waits
	// between them takes 10 s.
	Attempts int
	// MinRetry and MaxRetry bound the wait before something that has failed is
	// tried again: a message, a lost connection. The wait doubles with each
	// failure in a row, and a random part of up to one half is taken off it. A
	// message that waits is held, unacknowledged: all of its attempts must fit
	// into the broker's consumer timeout, 30 minutes unless set otherwise. Zero:
	// 100 ms and 15 s.
	MinRetry, MaxRetry time.Duration
	// DeadLetter parks messages by rejecting them, so that the broker moves them to
	// the dead letter exchange of their queue. If the queue has none the broker
	// drops them, and AMQP offers no way to find out: set it only if you have
	// declared one. False: they are stored in the table inbox_parked.
	DeadLetter bool

	// Timeout bounds each call of Handle and Before, and each wait for an answer
	// of the database. Zero: 30 s.
	Timeout time.Duration
	// StopTimeout bounds what Run does after its context has ended: it finishes
	// the transactions that have begun, and acks. Zero: 5 s.
	StopTimeout time.Duration

	// Retention is for how long, at the least, a message is known to be handled.
	// It must be longer than any duplicate may be under way: in a queue that
	// nobody reads, in an outbox whose relay is down, in a replay by hand. The
	// longest retention of all consumers in the database counts for all. Zero:
	// 7 days. Negative: for ever.
	Retention time.Duration
	// CleanInterval is how often the consumer looks whether a generation of rows
	// is over. Zero: 1 min.
	CleanInterval time.Duration

	// Logger is told of starts, stops, parked messages and errors. Nil:
	// slog.Default().
	Logger *slog.Logger
	// Hooks are called as things happen.
	Hooks Hooks
}

// Hooks feed metrics and tests. Each may be nil. They are called by the
// consumer's goroutines, several at once, and hold up its work: be quick.
type Hooks struct {
	// Handled is called when the effect of a message is committed, before the ack.
	Handled func(Delivery)
	// Duplicate is called when a message turns out to have been handled before.
	Duplicate func(Delivery)
	// Retry is called when a message has failed, was at fault, and is to be tried
	// again.
	Retry func(Delivery, error)
	// Parked is called when a message has been stored in inbox_parked, or is about
	// to be rejected.
	Parked func(Delivery, error)
	// Failed is called with each error after which the consumer tries again and
	// that is no message's fault.
	Failed func(error)
}

// withDefaults checks o and fills in what is zero.
func (o Options) withDefaults() (Options, error) {
	if (o.Conn == nil) == (o.Dial == nil) {
		return o, errors.New("inbox: set one of Options.Conn and Options.Dial")
	}
	if err := checkID(o.Consumer); err != nil {
		return o, fmt.Errorf("inbox: Options.Consumer: %w", err)
	}
	if o.Queue == "" {
		return o, errors.New("inbox: set Options.Queue")
	}
	if (o.Handle == nil) == (o.HandleBatch == nil) {
		return o, errors.New("inbox: set one of Options.Handle and Options.HandleBatch")
	}
	o.Concurrency = cmp.Or(o.Concurrency, 2)
	o.Batch = cmp.Or(o.Batch, 1)
	if o.Concurrency < 1 || o.Batch < 1 || o.Batch > 10_000 {
		return o, fmt.Errorf("inbox: Options.Concurrency is %d and Batch is %d; they must be at least 1, and Batch at most 10,000", o.Concurrency, o.Batch)
	}
	o.Prefetch = cmp.Or(o.Prefetch, min(max(2*o.Batch, 10)*o.Concurrency, 65_535))
	if o.Prefetch < o.Concurrency*o.Batch || o.Prefetch > 65_535 {
		return o, fmt.Errorf("inbox: Options.Prefetch is %d; it must be between Concurrency × Batch = %d and 65,535", o.Prefetch, o.Concurrency*o.Batch)
	}
	o.Attempts = cmp.Or(o.Attempts, 8)
	if o.Attempts < 1 {
		return o, fmt.Errorf("inbox: Options.Attempts is %d; it must be at least 1", o.Attempts)
	}
	o.MinRetry = cmp.Or(o.MinRetry, 100*time.Millisecond)
	o.MaxRetry = cmp.Or(o.MaxRetry, max(15*time.Second, o.MinRetry))
	o.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	o.StopTimeout = cmp.Or(o.StopTimeout, 5*time.Second)
	o.Retention = cmp.Or(o.Retention, 7*24*time.Hour)
	o.CleanInterval = cmp.Or(o.CleanInterval, time.Minute)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	for name, d := range map[string]time.Duration{
		"MinRetry": o.MinRetry, "MaxRetry": o.MaxRetry, "Timeout": o.Timeout,
		"StopTimeout": o.StopTimeout, "CleanInterval": o.CleanInterval,
	} {
		if d < 0 {
			return o, fmt.Errorf("inbox: Options.%s is %v; it must not be negative", name, d)
		}
	}
	return o, nil
}
