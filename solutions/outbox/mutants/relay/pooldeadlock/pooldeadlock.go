// Mutant: four workers each hold a transaction (for a lock on the aggregate) and mark through the pool, which has four connections: all wait for a fifth.
// Breaks: all-work-done
// Shown by: crowd

package pooldeadlock

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := run(ctx, db, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

type event struct {
	Seq       int64
	ID        string
	Aggregate string
	Type      string
	Payload   string
}

func message(e event) amqp.Publishing {
	return amqp.Publishing{
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		MessageId:    e.ID,
		Body:         []byte(e.Payload),
	}
}

type line struct {
	ch      *amqp.Channel
	returns <-chan amqp.Return
}

func run(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	gone := conn.NotifyClose(make(chan *amqp.Error, 1))
	lines := make(chan line, 4)
	for range cap(lines) {
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		lines <- line{ch, ch.NotifyReturn(make(chan amqp.Return, 4))}
	}
	for {
		rows, err := db.Query(ctx, `SELECT DISTINCT aggregate_id FROM outbox WHERE published_at IS NULL`)
		if err != nil {
			return err
		}
		aggregates, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		group, each := errgroup.WithContext(ctx)
		group.SetLimit(cap(lines))
		for _, a := range aggregates {
			group.Go(func() error {
				l := <-lines
				defer func() { lines <- l }()
				return serve(each, db, l, a)
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-gone:
			return fmt.Errorf("channel closed: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// serve publishes the events of one aggregate, up to the first that fails.
func serve(ctx context.Context, db *pgxpool.Pool, l line, aggregate string) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext($1))`, aggregate); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `
		SELECT seq, message_id::text, aggregate_id, type, payload::text FROM outbox
		WHERE aggregate_id = $1 AND published_at IS NULL ORDER BY seq LIMIT 20`, aggregate)
	if err != nil {
		return err
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		return err
	}
	for _, e := range events {
		dc, err := l.ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.Type, true, false, message(e))
		if err != nil {
			return err
		}
		ack, err := dc.WaitContext(ctx)
		if err != nil {
			return err
		}
		if !ack || len(l.returns) > 0 {
			for len(l.returns) > 0 {
				<-l.returns
			}
			break
		}
		// Not in tx: the mark has to stay when a later event fails.
		if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}
