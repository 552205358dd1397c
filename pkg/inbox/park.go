package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

const parkSQL = `
INSERT INTO inbox_parked (consumer, message_id, reason, attempts, queue, exchange, routing_key, properties, body)
VALUES ($1, nullif($2, ''), $3, $4, $5, $6, $7, $8::json, $9)
ON CONFLICT (consumer, message_id) DO UPDATE
SET reason = excluded.reason, attempts = excluded.attempts, parked_at = excluded.parked_at, queue = excluded.queue,
    exchange = excluded.exchange, routing_key = excluded.routing_key, properties = excluded.properties, body = excluded.body`

// park puts a message aside: into the table, in a transaction of its own before
// the ack, so that it is always somewhere; or to the dead letters.
func (w *worker) park(it *item, reason error) {
	c := w.c
	o := rejectable
	if !c.o.DeadLetter || w.replays != 0 {
		o = parked
		if err := w.store(it, reason); err != nil {
			if causeOf(err, false, false) == broken {
				w.broken = err
				w.add(untouched, it)
			} else {
				w.stall(err, it)
			}
			return
		}
	}
	w.add(o, it)
	c.counts.parked.Add(1)
	c.log.Error("inbox: a message is parked", "queue", c.o.Queue, "message_id", it.MessageId, "attempts", it.Attempt, "dead_letter", c.o.DeadLetter, "error", reason)
	if f := c.o.Hooks.Parked; f != nil {
		f(it.Delivery, reason)
	}
}

func (w *worker) store(it *item, reason error) error {
	op, cancel := w.operation()
	defer cancel()
	if w.replays != 0 {
		_, err := w.c.pool.Exec(op, "UPDATE inbox_parked SET reason = $2, attempts = attempts + 1 WHERE id = $1", w.replays, text(reason.Error()))
		if err != nil {
			return ours("inbox: store why a message failed again: %w", err)
		}
		return nil
	}
	properties, err := json.Marshal(propertiesOf(it.Delivery.Delivery))
	if err != nil {
		return ours("inbox: encode the properties of a message: %w", err)
	}
	body := it.Body
	if body == nil {
		body = []byte{}
	}
	_, err = w.c.pool.Exec(op, parkSQL, w.c.o.Consumer, it.ID, text(reason.Error()), it.Attempt, text(w.c.o.Queue),
		text(it.Exchange), text(it.RoutingKey), string(properties), body)
	if err != nil {
		return ours("inbox: store a message in inbox_parked: %w", err)
	}
	return nil
}

// text makes PostgreSQL able to store s.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// Replay handles the messages of this consumer that are in inbox_parked once more,
// in the order in which they were parked and one attempt each, and returns how many
// of them are there no longer. It is for a person who has mended the cause. What
// fails again stays there, with the new reason. It may be called while the
// consumer runs, here or elsewhere; it does not know of the order by key.
func (c *Consumer) Replay(ctx context.Context) (gone int, err error) {
	for last := int64(0); ; {
		it, id, err := c.nextParked(ctx, last)
		if errors.Is(err, pgx.ErrNoRows) {
			return gone, nil
		}
		if err != nil {
			return gone, fmt.Errorf("inbox: read a parked message: %w", err)
		}
		last = id
		w := c.newWorker(ctx)
		w.replays = id
		it.Attempt = c.o.Attempts // there is no other
		w.work([]*item{it})
		switch o := w.results[0].outcome; {
		case w.broken != nil:
			return gone, w.broken
		case ctx.Err() != nil:
			return gone, fmt.Errorf("inbox: replay: %w", ctx.Err())
		case o == again:
			return gone, fmt.Errorf("inbox: replay: %w", w.stalled)
		case o != parked:
			gone++
		}
	}
}

func (c *Consumer) nextParked(ctx context.Context, after int64) (it *item, id int64, err error) {
	var d amqp.Delivery
	var encoded string
	err = c.pool.QueryRow(ctx, `SELECT id, exchange, routing_key, properties::text, body FROM inbox_parked
		WHERE consumer = $1 AND id > $2 ORDER BY id LIMIT 1`, c.o.Consumer, after).Scan(&id, &d.Exchange, &d.RoutingKey, &encoded, &d.Body)
	if err != nil {
		return nil, 0, err
	}
	var p properties
	if err := json.Unmarshal([]byte(encoded), &p); err != nil {
		return nil, 0, fmt.Errorf("decode the properties of row %d: %w", id, err)
	}
	p.restore(&d)
	it, _ = c.newItem(d)
	it.lane = &lane{}
	return it, id, nil
}
