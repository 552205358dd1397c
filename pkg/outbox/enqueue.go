package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Event is something that has happened, to be told to others.
type Event struct {
	// ID names the message for good: consumers know a duplicate by it. The zero
	// value makes [Enqueue] choose a new UUIDv7.
	ID uuid.UUID
	// AggregateID names what the event happened to, such as an order. Events of
	// one aggregate are published in order. It must not be empty.
	AggregateID string
	// Type says what happened, such as order.placed, and becomes the routing key.
	// 1 to 255 bytes.
	Type string
	// Payload is what consumers are told, encoded by [json.Marshal]. A
	// [json.RawMessage] is stored as it is, though PostgreSQL's jsonb drops white
	// space, the order of keys and all but the last of equal keys.
	Payload any
}

// maxType is the longest routing key that AMQP can express, in bytes.
const maxType = 255

// ErrInvalid is wrapped by the error of [Enqueue] when an event cannot be
// published as it is. Nothing has been sent to the database then, and the
// transaction can go on.
var ErrInvalid = errors.New("outbox: invalid event")

// Enqueue stores events in the outbox as part of tx, in one round trip, and
// returns their IDs in the order of the arguments. They are published, in that
// order, once tx has committed, and never if it does not.
//
// When it returns an error other than [ErrInvalid], tx has failed and must be
// rolled back. A duplicate ID is such an error.
//
// Transactions that enqueue events of the same aggregate must not overlap, or
// the order of their events is undefined: lock the aggregate's row first, as an
// UPDATE of it does.
func Enqueue(ctx context.Context, tx pgx.Tx, events ...Event) ([]uuid.UUID, error) {
	if len(events) == 0 {
		return nil, nil
	}
	ids := make([]uuid.UUID, len(events))
	aggregates := make([]string, len(events))
	types := make([]string, len(events))
	payloads := make([]string, len(events))
	for i, e := range events {
		switch {
		case e.AggregateID == "":
			return nil, fmt.Errorf("%w: event %d (%s) has no AggregateID", ErrInvalid, i, e.Type)
		case e.Type == "":
			return nil, fmt.Errorf("%w: event %d (of %s) has no Type", ErrInvalid, i, e.AggregateID)
		case len(e.Type) > maxType:
			return nil, fmt.Errorf("%w: the Type of event %d (of %s) is %d bytes long, a routing key has at most %d", ErrInvalid, i, e.AggregateID, len(e.Type), maxType)
		}
		payload, err := json.Marshal(e.Payload)
		if err != nil {
			return nil, fmt.Errorf("%w: the Payload of event %d (%s of %s) has no JSON form: %w", ErrInvalid, i, e.Type, e.AggregateID, err)
		}
		if holdsNUL(payload) {
			return nil, fmt.Errorf("%w: the Payload of event %d (%s of %s) holds a NUL character, which PostgreSQL's jsonb cannot store", ErrInvalid, i, e.Type, e.AggregateID)
		}
		if ids[i] = e.ID; e.ID == uuid.Nil {
			if ids[i], err = uuid.NewV7(); err != nil {
				return nil, fmt.Errorf("outbox: choose an ID for event %d: %w", i, err)
			}
		}
		aggregates[i], types[i], payloads[i] = e.AggregateID, e.Type, string(payload)
	}
	_, err := tx.Exec(ctx, enqueueSQL, ids, aggregates, types, payloads)
	if err != nil {
		return nil, fmt.Errorf("outbox: store %d events (roll the transaction back): %w", len(events), err)
	}
	return ids, nil
}

// holdsNUL tells whether a string in the JSON text holds a NUL: the escape
// \u0000, unless its backslash is itself escaped.
func holdsNUL(text []byte) bool {
	for {
		i := bytes.Index(text, []byte(`\u0000`))
		if i < 0 {
			return false
		}
		before := len(text[:i]) - len(bytes.TrimRight(text[:i], `\`))
		if before%2 == 0 {
			return true
		}
		text = text[i+1:]
	}
}

// The rows are sorted before they are numbered: seq follows the arguments.
const enqueueSQL = `
INSERT INTO outbox (message_id, aggregate_id, type, payload)
SELECT id, aggregate, type, payload::jsonb
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS e (id, aggregate, type, payload, n)
ORDER BY n`
