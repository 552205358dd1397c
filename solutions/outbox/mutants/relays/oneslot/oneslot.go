// Mutant: three slots for three processes, each of which takes one slot when it starts and never another one.
// Breaks: all-work-done
// Shown by: absent

package oneslot

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

func Relays(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := run(ctx, db, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

const slots = 3

func run(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	pub, err := newPublisher(conn)
	if err != nil {
		return err
	}
	s, err := openSession(ctx, db)
	if err != nil {
		return err
	}
	defer s.end()
	if err := s.exec(ctx, `SET idle_session_timeout = '1500ms'`); err != nil {
		return err
	}
	slot := -1
	for ctx.Err() == nil {
		if pub.ch.IsClosed() {
			return amqp.ErrClosed
		}
		for i := 0; i < slots && slot < 0; i++ {
			var ok bool
			if err := s.scan(ctx, &ok, `SELECT pg_try_advisory_lock(727109, $1::int4)`, i); err != nil {
				return err
			}
			if ok {
				slot = i
			}
		}
		if slot < 0 { // a spare process
			pause(ctx, 100*time.Millisecond)
			continue
		}
		heads, err := s.events(ctx, `
			SELECT DISTINCT ON (aggregate_id) seq, message_id::text, aggregate_id, type, payload::text
			FROM outbox
			WHERE published_at IS NULL AND (hashtext(aggregate_id) & 2147483647) % 3 = $1
			ORDER BY aggregate_id, seq LIMIT 100`, slot)
		if err != nil {
			return err
		}
		delivered, err := pub.send(ctx, heads...)
		if err != nil {
			return err
		}
		if len(delivered) == 0 {
			pause(ctx, pollInterval)
			continue
		}
		if err := s.exec(ctx, `UPDATE outbox SET published_at = now() WHERE seq = ANY($1)`, seqs(delivered)); err != nil {
			return err
		}
	}
	return nil
}

type session struct{ *pgx.Conn }

func openSession(ctx context.Context, db *pgxpool.Pool) (*session, error) {
	pooled, err := db.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return &session{pooled.Hijack()}, nil
}

func (s *session) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.Close(ctx)
}

func (s *session) scan(ctx context.Context, dst any, sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return s.QueryRow(ctx, sql, args...).Scan(dst)
}

func (s *session) exec(ctx context.Context, sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	_, err := s.Exec(ctx, sql, args...)
	return err
}

func (s *session) events(ctx context.Context, sql string, args ...any) ([]event, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return collect(s.Query(ctx, sql, args...))
}

const (
	pollInterval   = 20 * time.Millisecond
	confirmTimeout = 1500 * time.Millisecond
	queryTimeout   = 2 * time.Second
)

type event struct {
	Seq       int64
	MessageID string
	Aggregate string
	Type      string
	Payload   string
}

func collect(rows pgx.Rows, err error) ([]event, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[event])
}

func seqs(events []event) []int64 {
	out := make([]int64, len(events))
	for i, e := range events {
		out[i] = e.Seq
	}
	return out
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// publisher publishes on a channel of its own, and is used by one goroutine.
type publisher struct {
	ch      *amqp.Channel
	returns chan amqp.Return
}

func newPublisher(conn *amqp.Connection) (*publisher, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		return nil, err
	}
	return &publisher{ch: ch, returns: ch.NotifyReturn(make(chan amqp.Return, 256))}, nil
}

// send publishes the events without waiting in between, then waits for all
// confirmations, and returns the events that were delivered.
func (p *publisher) send(ctx context.Context, events ...event) ([]event, error) {
	confirms := make([]*amqp.DeferredConfirmation, len(events))
	for i, e := range events {
		c, err := p.ch.PublishWithDeferredConfirm("events", e.Type, true, false, amqp.Publishing{
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			MessageId:    e.MessageID,
			Body:         []byte(e.Payload),
		})
		if err != nil {
			return nil, err
		}
		confirms[i] = c
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	acked := make(map[string]bool, len(events))
	for i, c := range confirms {
		ok, err := c.WaitContext(ctx)
		if err != nil {
			return nil, err
		}
		acked[events[i].MessageID] = ok
	}
	// A message that comes back comes before its confirmation.
	for done := false; !done; {
		select {
		case r, ok := <-p.returns:
			if !ok {
				return nil, amqp.ErrClosed
			}
			acked[r.MessageId] = false
		default:
			done = true
		}
	}
	if p.ch.IsClosed() {
		return nil, amqp.ErrClosed
	}
	var delivered []event
	for _, e := range events {
		if acked[e.MessageID] {
			delivered = append(delivered, e)
		}
	}
	return delivered, nil
}
