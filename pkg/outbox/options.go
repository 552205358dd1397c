package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Source is how a [Relay] learns of new events.
type Source int

const (
	// Polling asks the database every PollInterval.
	Polling Source = iota
	// Notify is told by the database: a trigger that [Migrate] makes sends a
	// NOTIFY when events are committed. It polls as well, every PollInterval, for
	// a notification can be missed.
	Notify
	// CDC, change data capture, reads the events out of the database's
	// write-ahead log by logical replication. It needs wal_level=logical, a role
	// with the right REPLICATION, and for the first start a role that owns the
	// table outbox. Only one relay is active at a time, whatever Partitions says.
	CDC
)

// String returns polling, notify or cdc.
func (s Source) String() string {
	switch s {
	case Polling:
		return "polling"
	case Notify:
		return "notify"
	case CDC:
		return "cdc"
	}
	return fmt.Sprintf("Source(%d)", int(s))
}

// Options are the options of a [Relay]. Every field but one of Conn and Dial
// may be left zero.
type Options struct {
	// Conn is a connection to publish over. It stays the caller's: the relay
	// opens channels on it and closes those. When it is closed, Run ends with
	// [ErrConnClosed].
	Conn *amqp.Connection
	// Dial makes the connection to publish over, and makes it again when it is
	// lost. The relay closes it. Do not share one connection with consumers: the
	// broker may stop reading from connections that publish.
	Dial func(ctx context.Context) (*amqp.Connection, error)

	// Source says how the relay learns of new events. Zero: Polling.
	Source Source
	// Exchange is published to. It must exist. Empty: "events".
	Exchange string
	// Prepare may change a message before it is published, to set a header or
	// the priority for example. MessageId and DeliveryMode are set after it. Nil:
	// nothing is changed. It must be quick and may be called from several
	// goroutines at once.
	Prepare func(Message, *amqp.Publishing)

	// Batch is how many events are read and marked in one transaction, and how
	// many are unconfirmed at a time in each partition. After a crash, up to
	// Batch × Partitions events are published twice. Zero: 1,000.
	Batch int
	// Partitions is how many transactions work at the same time, each on its
	// share of the aggregates, each over a pool connection of its own. Several
	// relays divide the partitions among themselves. They may differ in their
	// number. Zero: 2. At most 64.
	Partitions int
	// Pipeline lets several events of one aggregate be unconfirmed at a time.
	// It is faster when few aggregates have many events. The price: when the
	// broker refuses one, later ones of that aggregate may arrive before it.
	Pipeline bool

	// PollInterval is how long the relay waits before it looks for events that
	// it has not been told of. Zero: 100 ms, 500 ms for Notify. CDC polls only
	// until its replication slot has been made, when it is first used.
	PollInterval time.Duration
	// MinRetry and MaxRetry bound the wait before something that has failed is
	// tried again: a refused event, a lost connection. The wait doubles with
	// each failure in a row, and a random part of up to one half is taken off it.
	// Zero: 100 ms and 15 s.
	MinRetry, MaxRetry time.Duration
	// Timeout bounds each wait for an answer of the database or for the next
	// confirm of the broker. When it has passed the connection counts as lost.
	// Zero: 30 s.
	Timeout time.Duration
	// StopTimeout bounds what Run does after its context has ended: it waits for
	// confirms on the way and marks their rows. Zero: 5 s.
	StopTimeout time.Duration

	// Delete deletes the rows of published events at once. False: they are
	// marked, and deleted after Keep.
	Delete bool
	// Keep is how long rows of published events are kept. Zero: 24 h. Negative:
	// for ever.
	Keep time.Duration
	// CleanInterval is how often the relay deletes what has been kept long
	// enough, in batches of 1,000 rows. Zero: 1 min.
	CleanInterval time.Duration

	// Slot and Publication are the names that CDC gives to the replication slot
	// and the publication. A slot's name is unique in the whole server. Empty:
	// "outbox_" and the OID of the database, and "outbox".
	Slot, Publication string
	// Heartbeat is how often CDC tells the server how far it has come while
	// there are no events, so that the server can recycle its log. Zero: 10 s.
	Heartbeat time.Duration

	// Logger is told of starts, stops, refusals and errors. Nil: slog.Default().
	Logger *slog.Logger
	// Hooks are called as things happen.
	Hooks Hooks
}

// Hooks feed metrics and tests. Each may be nil. They are called by the relay's
// goroutines, several at once, and hold up its work: be quick.
type Hooks struct {
	// Published is called when the broker has confirmed an event, before its row
	// is marked. It is called again if the event is published again.
	Published func(Message)
	// Refused is called when the broker did not take an event.
	Refused func(Message, Refusal)
	// Failed is called with each error after which the relay tries again.
	Failed func(error)
}

// Refusal says why the broker did not take an event.
type Refusal struct {
	// Reason is for people, such as "returned: 312 NO_ROUTE".
	Reason string
	// Returned tells that no queue is bound for the event. False: the broker, or
	// AMQP itself, could not handle it.
	Returned bool
	// Attempts counts the refusals of the event in a row, this one included.
	Attempts int
	// Wait is how long the events of the aggregate are held from now on.
	Wait time.Duration
}

// slots is into how many parts the aggregates are divided for good. A partition
// is a set of slots.
const slots = 64

// withDefaults checks o and fills in what is zero.
func (o Options) withDefaults() (Options, error) {
	if (o.Conn == nil) == (o.Dial == nil) {
		return o, errors.New("outbox: set one of Options.Conn and Options.Dial")
	}
	if o.Source < Polling || o.Source > CDC {
		return o, fmt.Errorf("outbox: Options.Source is %v; it must be Polling, Notify or CDC", o.Source)
	}
	if o.Partitions < 0 || o.Partitions > slots {
		return o, fmt.Errorf("outbox: Options.Partitions is %d; it must be between 1 and %d", o.Partitions, slots)
	}
	if o.Batch < 0 || o.Batch > 1<<15 {
		return o, fmt.Errorf("outbox: Options.Batch is %d; it must be between 1 and %d", o.Batch, 1<<15)
	}
	setDefault(&o.Exchange, "events")
	setDefault(&o.Batch, 1000)
	setDefault(&o.Partitions, 2)
	setDefault(&o.MinRetry, 100*time.Millisecond)
	setDefault(&o.MaxRetry, max(15*time.Second, o.MinRetry))
	setDefault(&o.Timeout, 30*time.Second)
	setDefault(&o.StopTimeout, 5*time.Second)
	setDefault(&o.Keep, 24*time.Hour)
	setDefault(&o.CleanInterval, time.Minute)
	setDefault(&o.Publication, "outbox")
	setDefault(&o.Heartbeat, 10*time.Second)
	setDefault(&o.Logger, slog.Default())
	if o.Source == Notify {
		setDefault(&o.PollInterval, 500*time.Millisecond)
	}
	setDefault(&o.PollInterval, 100*time.Millisecond)
	if o.Source == CDC {
		o.Partitions = 1
	}
	for name, d := range map[string]time.Duration{
		"PollInterval": o.PollInterval, "MinRetry": o.MinRetry, "MaxRetry": o.MaxRetry, "Timeout": o.Timeout,
		"StopTimeout": o.StopTimeout, "CleanInterval": o.CleanInterval, "Heartbeat": o.Heartbeat,
	} {
		if d < 0 {
			return o, fmt.Errorf("outbox: Options.%s is %v; it must not be negative", name, d)
		}
	}
	return o, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
