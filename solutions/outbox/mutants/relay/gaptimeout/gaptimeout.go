// Mutant: a cursor on seq which remembers the gaps it saw, but forgets a gap after a second ("that transaction was rolled back").
// Breaks: no-lost-event
// Shown by: late

package gaptimeout

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
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

type publisher struct {
	ch       *amqp.Channel
	confirms <-chan amqp.Confirmation
	returns  <-chan amqp.Return
}

func run(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	p := &publisher{
		ch:       ch,
		confirms: ch.NotifyPublish(make(chan amqp.Confirmation, 1)),
		returns:  ch.NotifyReturn(make(chan amqp.Return, 1)),
	}
	gone := ch.NotifyClose(make(chan *amqp.Error, 1))
	// Rows to look for behind the cursor: gaps, and events to try again.
	gaps := map[int64]time.Time{}
	again := map[int64]bool{}
	var last int64
	rows, err := db.Query(ctx, `
		SELECT g FROM generate_series(1, (SELECT coalesce(max(seq), 0) FROM outbox)) g
		WHERE NOT EXISTS (SELECT FROM outbox WHERE seq = g)`)
	if err != nil {
		return err
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	for _, seq := range missing {
		gaps[seq] = time.Now()
	}
	for {
		behind := []int64{}
		for seq, seen := range gaps {
			if time.Since(seen) > time.Second {
				delete(gaps, seq) // rolled back
			} else {
				behind = append(behind, seq)
			}
		}
		for seq := range again {
			behind = append(behind, seq)
		}
		rows, err := db.Query(ctx, `
			SELECT seq, message_id::text, aggregate_id, type, payload::text FROM outbox
			WHERE (seq > $1 OR seq = ANY($2)) AND published_at IS NULL ORDER BY seq`, last, behind)
		if err != nil {
			return err
		}
		batch, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
		if err != nil {
			return err
		}
		blocked := map[string]bool{}
		for _, e := range batch {
			if e.Seq > last {
				if last > 0 {
					for seq := last + 1; seq < e.Seq; seq++ {
						gaps[seq] = time.Now()
					}
				}
				last = e.Seq
			}
			delete(gaps, e.Seq)
			again[e.Seq] = true
			if blocked[e.Aggregate] {
				continue
			}
			ok, err := p.deliver(ctx, e)
			if err != nil {
				return err
			}
			if !ok {
				blocked[e.Aggregate] = true
				continue
			}
			if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = $1`, e.Seq); err != nil {
				return err
			}
			delete(again, e.Seq)
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

// deliver publishes one event and reports whether a queue has it.
func (p *publisher) deliver(ctx context.Context, e event) (bool, error) {
	if err := p.ch.PublishWithContext(ctx, "events", e.Type, true, false, message(e)); err != nil {
		return false, err
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case c, open := <-p.confirms:
		if !open {
			return false, amqp.ErrClosed
		}
		select {
		case <-p.returns:
			return false, nil
		default:
			return c.Ack, nil
		}
	}
}
