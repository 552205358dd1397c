package inbox

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Delivery is a message in the hands of a [Consumer], which also settles it: the
// methods Ack, Nack and Reject return an error.
type Delivery struct {
	amqp.Delivery
	// ID is what duplicates are known by: the message ID, or what Options.ID says.
	// It is empty, in the hook Parked alone, if there is none that can be used.
	ID string
	// Attempt counts the failures of this delivery that were its own fault, and
	// this attempt: 1 at first.
	Attempt int
	// Before is what Options.Before has returned.
	Before any

	consumer string
}

// IdempotencyKey returns a key for a call to another system that is the same for
// each attempt at this message, see [IdempotencyKey].
func (d Delivery) IdempotencyKey() string { return IdempotencyKey(d.consumer, d.ID) }

// IdempotencyKey returns a key for a call to another system, made for the sake of
// the message id by consumer: 64 hexadecimal digits, which any header can hold. It
// is the same whenever and wherever it is asked for. Whoever makes several calls
// for one message adds something of their own to it.
func IdempotencyKey(consumer, id string) string {
	sum := sha256.Sum256([]byte(consumer + "\x00" + id))
	return hex.EncodeToString(sum[:])
}

// maxID is the longest ID in bytes: what AMQP can express as a message ID.
const maxID = 255

// ErrInvalidID is wrapped by the error of [Once], and by the reason why a message
// was parked, when its ID cannot be used: it is empty, too long, or no text.
var ErrInvalidID = errors.New("inbox: invalid message ID")

func checkID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: it is empty", ErrInvalidID)
	case len(id) > maxID:
		return fmt.Errorf("%w: it is %d bytes long, at most %d are allowed", ErrInvalidID, len(id), maxID)
	case !utf8.ValidString(id) || strings.ContainsRune(id, 0):
		return fmt.Errorf("%w: %q is no text that PostgreSQL can store", ErrInvalidID, id)
	}
	return nil
}

// item is a message that the consumer holds.
type item struct {
	Delivery
	tag     uint64
	lane    *lane
	arrived time.Time
	invalid error // why it cannot be handled whatever happens
	stalled int   // failures in a row that were not its fault
}

// newItem takes a delivery in.
func (c *Consumer) newItem(d amqp.Delivery) (it *item, key string) {
	it = &item{Delivery: Delivery{Delivery: d, Attempt: 1, consumer: c.o.Consumer}, tag: d.DeliveryTag, arrived: time.Now()}
	it.Acknowledger = nil // not for the handler
	it.ID, it.invalid = c.identify(it.Delivery.Delivery)
	if it.invalid != nil {
		it.ID = ""
		return it, ""
	}
	if c.o.Key != nil {
		if err := guard(func() error { key = c.o.Key(it.Delivery); return nil }); err != nil {
			it.invalid = fmt.Errorf("inbox: Options.Key: %w", err)
		}
	}
	return it, key
}

func (c *Consumer) identify(d amqp.Delivery) (id string, err error) {
	if c.o.ID == nil {
		return d.MessageId, checkID(d.MessageId)
	}
	err = guard(func() (err error) { id, err = c.o.ID(d); return err })
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalidID, err)
	}
	return id, checkID(id)
}

// age says how old a message is: since its timestamp, which AMQP has in whole
// seconds, or since it arrived if it has none.
func (it *item) age() time.Duration {
	since := it.arrived
	if !it.Timestamp.IsZero() && it.Timestamp.Before(since) {
		since = it.Timestamp
	}
	return time.Since(since)
}
