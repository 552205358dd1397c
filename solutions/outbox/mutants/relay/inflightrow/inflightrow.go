// Mutant: confirmations are awaited in the background and what is in flight is left out by row, not by aggregate: the next event of the aggregate goes out while the first is unconfirmed.
// Breaks: order-per-key
// Shown by: nack

package inflightrow

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
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

type relay struct {
	db      *pgxpool.Pool
	ch      *amqp.Channel
	returns <-chan amqp.Return

	mu       sync.Mutex
	inFlight map[int64]bool
	returned map[string]bool
}

func run(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	gone := ch.NotifyClose(make(chan *amqp.Error, 1))
	returns := ch.NotifyReturn(make(chan amqp.Return, 8192))
	r := &relay{db: db, ch: ch, returns: returns, inFlight: map[int64]bool{}, returned: map[string]bool{}}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for {
			r.mu.Lock()
			busy := slices.AppendSeq([]int64{}, maps.Keys(r.inFlight))
			r.mu.Unlock()
			rows, err := db.Query(ctx, `
				SELECT seq, message_id::text, aggregate_id, type, payload::text
				FROM (SELECT DISTINCT ON (aggregate_id) * FROM outbox
				      WHERE published_at IS NULL AND NOT seq = ANY($1)
				      ORDER BY aggregate_id, seq) head
				ORDER BY seq LIMIT 2000`, busy)
			if err != nil {
				return err
			}
			events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
			if err != nil {
				return err
			}
			for _, e := range events {
				dc, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", e.Type, true, false, message(e))
				if err != nil {
					return err
				}
				r.mu.Lock()
				r.inFlight[e.Seq] = true
				r.mu.Unlock()
				group.Go(func() error { return r.settle(ctx, e, dc) })
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-gone:
				return fmt.Errorf("channel closed: %v", err)
			case <-time.After(30 * time.Millisecond):
			}
		}
	})
	return group.Wait()
}

// settle marks an event when it is delivered, or leaves it to the next round.
func (r *relay) settle(ctx context.Context, e event, dc *amqp.DeferredConfirmation) error {
	ack, err := dc.WaitContext(ctx)
	if err != nil {
		return err
	}
	if ack && !r.cameBack(e) {
		if _, err := r.db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.inFlight, e.Seq)
	return nil
}

func (r *relay) cameBack(e event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.returns) > 0 {
		ret := <-r.returns
		r.returned[ret.MessageId] = true
	}
	back := r.returned[e.ID]
	delete(r.returned, e.ID)
	return back
}
