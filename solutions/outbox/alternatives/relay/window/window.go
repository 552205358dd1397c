// Package window answers outbox/relay with a window that never drains: while
// some events wait for their confirms, others are sent. One goroutine does it
// all, around one select; the confirms come through NotifyPublish.
package window

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	size = 64                     // most events without a confirm
	tick = 100 * time.Millisecond // between looks for new rows
)

type event struct {
	seq       int64
	aggregate string
	id        string
	key       string
	payload   []byte
}

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	defer ch.Close()
	r := &relay{
		db: db,
		ch: ch,
		// Room for a whole window, so that the library never waits for this
		// goroutine while it is busy with the database.
		confirms: ch.NotifyPublish(make(chan amqp.Confirmation, size)),
		returns:  ch.NotifyReturn(make(chan amqp.Return, size)),
		flying:   map[uint64]event{},
		busy:     map[string]bool{},
	}
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirms: %w", err)
	}
	err = r.run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

type relay struct {
	db       *pgxpool.Pool
	ch       *amqp.Channel
	confirms <-chan amqp.Confirmation
	returns  <-chan amqp.Return
	tag      uint64           // of the last event published
	flying   map[uint64]event // by delivery tag
	busy     map[string]bool  // aggregates with an event in the air, or one that failed since the last tick
}

func (r *relay) run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if err := r.send(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			// Events that failed may try again.
			clear(r.busy)
			for _, e := range r.flying {
				r.busy[e.aggregate] = true
			}
		case c, ok := <-r.confirms:
			if !ok {
				return errors.New("the channel was closed")
			}
			if err := r.settle(ctx, c); err != nil {
				return err
			}
		}
	}
}

// send fills the window with the first events of aggregates that have none in
// the air.
func (r *relay) send(ctx context.Context) error {
	room := size - len(r.flying)
	if room == 0 {
		return nil
	}
	busy := make([]string, 0, len(r.busy))
	for aggregate := range r.busy {
		busy = append(busy, aggregate)
	}
	rows, err := r.db.Query(ctx, `
		SELECT DISTINCT ON (aggregate_id) seq, aggregate_id, message_id::text, type, payload
		FROM outbox
		WHERE published_at IS NULL AND aggregate_id <> ALL($1)
		ORDER BY aggregate_id, seq
		LIMIT $2`, busy, room)
	if err != nil {
		return fmt.Errorf("read the outbox: %w", err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e event, err error) {
		err = row.Scan(&e.seq, &e.aggregate, &e.id, &e.key, &e.payload)
		return e, err
	})
	if err != nil {
		return fmt.Errorf("read the outbox: %w", err)
	}
	for _, e := range events {
		if err := r.ch.PublishWithContext(ctx, "events", e.key, true, false, amqp.Publishing{
			MessageId:    e.id,
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         e.payload,
		}); err != nil {
			return fmt.Errorf("publish event %d: %w", e.seq, err)
		}
		r.tag++
		r.flying[r.tag] = e
		r.busy[e.aggregate] = true
	}
	return nil
}

// settle takes the confirm at hand and all that came with it, and marks what was
// delivered in one statement.
func (r *relay) settle(ctx context.Context, c amqp.Confirmation) error {
	settled := []amqp.Confirmation{c}
	for len(r.confirms) > 0 {
		c, ok := <-r.confirms
		if !ok {
			break
		}
		settled = append(settled, c)
	}
	// A return comes before its confirm, so all that matter are here. One too many
	// does no harm: its confirm comes later, and the event is known by then.
	for len(r.returns) > 0 {
		ret, ok := <-r.returns
		if !ok {
			break
		}
		for tag, e := range r.flying {
			if e.id == ret.MessageId {
				e.id = "" // returned
				r.flying[tag] = e
			}
		}
	}
	var delivered []int64
	for _, c := range settled {
		e := r.flying[c.DeliveryTag]
		delete(r.flying, c.DeliveryTag)
		if c.Ack && e.id != "" {
			delivered = append(delivered, e.seq)
			delete(r.busy, e.aggregate)
		}
	}
	if len(delivered) == 0 {
		return nil
	}
	if _, err := r.db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, delivered); err != nil {
		return fmt.Errorf("mark the published events: %w", err)
	}
	return nil
}
