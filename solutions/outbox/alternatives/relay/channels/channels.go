// Package channels answers outbox/relay with workers that have a channel each.
// Aggregates are dealt out to the workers; a worker takes the events of its
// aggregate one after the other, so order holds within it and nothing else waits.
package channels

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

const (
	workers = 3
	pause   = 50 * time.Millisecond
)

type event struct {
	Seq     int64
	ID      string
	Key     string
	Payload []byte
}

// Relay publishes every committed row of outbox until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	var team []*worker
	for range workers {
		w, err := newWorker(db, conn)
		if err != nil {
			return err
		}
		defer w.ch.Close()
		team = append(team, w)
	}
	// The first error ends the context of the group, and so all the others.
	group, groupCtx := errgroup.WithContext(ctx)
	aggregates := make(chan string)
	done := make(chan struct{})
	for _, w := range team {
		group.Go(func() error { return w.run(groupCtx, aggregates, done) })
	}
	group.Go(func() error { return deal(groupCtx, db, aggregates, done) })
	err := group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// deal hands out each aggregate that has unpublished events, and looks again
// when all of them are done.
func deal(ctx context.Context, db *pgxpool.Pool, aggregates chan<- string, done <-chan struct{}) error {
	for {
		rows, err := db.Query(ctx, `SELECT DISTINCT aggregate_id FROM outbox WHERE published_at IS NULL`)
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		todo, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		out := 0
		for len(todo) > 0 || out > 0 {
			var next chan<- string
			var aggregate string
			if len(todo) > 0 {
				next, aggregate = aggregates, todo[0]
			}
			select {
			case next <- aggregate:
				todo = todo[1:]
				out++
			case <-done:
				out--
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

type worker struct {
	db      *pgxpool.Pool
	ch      *amqp.Channel
	returns <-chan amqp.Return
	closed  <-chan *amqp.Error
}

func newWorker(db *pgxpool.Pool, conn *amqp.Connection) (*worker, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("ask for confirms: %w", err)
	}
	return &worker{
		db:      db,
		ch:      ch,
		returns: ch.NotifyReturn(make(chan amqp.Return, 1)),
		closed:  ch.NotifyClose(make(chan *amqp.Error, 1)),
	}, nil
}

func (w *worker) run(ctx context.Context, aggregates <-chan string, done chan<- struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-w.closed:
			return fmt.Errorf("the channel was closed: %v", err)
		case aggregate := <-aggregates:
			if err := w.drain(ctx, aggregate); err != nil {
				return fmt.Errorf("events of %s: %w", aggregate, err)
			}
			select {
			case done <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// drain publishes and marks the events of one aggregate in turn, until one
// cannot be delivered or none is left.
func (w *worker) drain(ctx context.Context, aggregate string) error {
	rows, err := w.db.Query(ctx, `
		SELECT seq, message_id::text, type, payload FROM outbox
		WHERE aggregate_id = $1 AND published_at IS NULL
		ORDER BY seq
		LIMIT 20`, aggregate)
	if err != nil {
		return err
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return err
	}
	for _, e := range events {
		confirm, err := w.ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.Key, true, false, amqp.Publishing{
			MessageId:    e.ID,
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         e.Payload,
		})
		if err != nil {
			return err
		}
		delivered, err := confirm.WaitContext(ctx)
		if err != nil {
			return err
		}
		if len(w.returns) > 0 {
			<-w.returns
			delivered = false
		}
		if !delivered {
			return nil // the next deal brings it again
		}
		if _, err := w.db.Exec(ctx, `UPDATE outbox SET published_at = clock_timestamp() WHERE seq = $1`, e.Seq); err != nil {
			return err
		}
	}
	return nil
}
