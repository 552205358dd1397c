// Package window answers outbox/relay with a window that never drains: while
// some events wait for their confirms, others are sent. One goroutine does it
// all, around one select on the oldest event that waits.
package window

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	size = 64                    // most events without a confirm
	tick = 50 * time.Millisecond // between looks for new rows
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
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirms: %w", err)
	}
	r := &relay{
		db:       db,
		ch:       ch,
		returns:  ch.NotifyReturn(make(chan amqp.Return, size)), // room for a whole window
		closed:   ch.NotifyClose(make(chan *amqp.Error, 1)),
		returned: map[string]bool{},
		busy:     map[string]bool{},
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
	returns  <-chan amqp.Return
	closed   <-chan *amqp.Error
	flying   []flight        // the oldest first
	returned map[string]bool // events in the air that came back
	busy     map[string]bool // aggregates with an event in the air, or one that failed since the last tick
}

// flight is an event without an answer yet.
type flight struct {
	event
	confirm *amqp.DeferredConfirmation
}

func (r *relay) run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if err := r.send(ctx); err != nil {
			return err
		}
		var answered <-chan struct{} // never, with nothing in the air
		if len(r.flying) > 0 {
			answered = r.flying[0].confirm.Done()
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-r.closed:
			return fmt.Errorf("the channel was closed: %v", err)
		case <-ticker.C:
			// Events that failed may try again.
			clear(r.busy)
			for _, f := range r.flying {
				r.busy[f.aggregate] = true
			}
		case <-answered:
			if err := r.settle(ctx); err != nil {
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
		confirm, err := r.ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.key, true, false, amqp.Publishing{
			MessageId:    e.id,
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         e.payload,
		})
		if err != nil {
			return fmt.Errorf("publish event %d: %w", e.seq, err)
		}
		r.flying = append(r.flying, flight{e, confirm})
		r.busy[e.aggregate] = true
	}
	return nil
}

// settle takes all events that have an answer out of the window, and marks those
// that were delivered in one statement.
func (r *relay) settle(ctx context.Context) error {
	var landed, flying []flight
	for _, f := range r.flying {
		select {
		case <-f.confirm.Done():
			landed = append(landed, f)
		default:
			flying = append(flying, f)
		}
	}
	r.flying = flying
	// Read after the confirms: a return comes before its own. Those of events that
	// still fly are here too, perhaps.
	for len(r.returns) > 0 {
		r.returned[(<-r.returns).MessageId] = true
	}
	var delivered []int64
	for _, f := range landed {
		if f.confirm.Acked() && !r.returned[f.id] {
			delivered = append(delivered, f.seq)
			delete(r.busy, f.aggregate)
		}
		delete(r.returned, f.id)
	}
	if len(delivered) == 0 {
		return nil
	}
	if _, err := r.db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, delivered); err != nil {
		return fmt.Errorf("mark the published events: %w", err)
	}
	return nil
}
