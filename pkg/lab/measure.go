package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/step"
	"crashcourse/pkg/wire"
)

// Relayed is how a relay did in [Lab.Measure].
type Relayed struct {
	MS   []float64 // an event each: milliseconds from the begin of the transaction that stored it to its delivery to a consumer
	Idle float64   // messages a second that the relay sends to PostgreSQL when there is nothing to do
}

// Bounds of a measurement.
const (
	measuredEvents = 50
	measuredGap    = 20 * time.Millisecond  // between two events, on average
	settleFor      = 300 * time.Millisecond // after the last event
	idleFor        = 1100 * time.Millisecond
	arriveWithin   = 10 * time.Second
)

// Measure runs a relay inside the cell, stores events by enqueue, one every 20
// ms or so, and consumes them from queue. enqueue stores one event in a
// transaction, with the given message ID and a routing key that the queue is
// bound to. The relay's messages to PostgreSQL are counted while it is idle.
func (l *Lab) Measure(queue string, relay Work, enqueue func(ctx context.Context, db *pgxpool.Pool, id uuid.UUID) error) Relayed {
	if l.role != nil {
		return Relayed{}
	}
	m := &measurement{lab: l, sent: map[string]time.Time{}, enqueue: enqueue}
	if err := m.do(queue, relay); err != nil {
		l.fail(fmt.Errorf("lab: measure a relay: %w", err))
	}
	return m.got
}

type measurement struct {
	lab      *Lab
	enqueue  func(context.Context, *pgxpool.Pool, uuid.UUID) error
	arrivals <-chan amqp.Delivery
	ended    chan error // the relay's return
	sent     map[string]time.Time
	got      Relayed
}

func (m *measurement) do(queue string, relay Work) error {
	l := m.lab
	ch, err := l.Conn().Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	if _, err := ch.QueuePurge(queue, false); err != nil {
		return err
	}
	if m.arrivals, err = ch.Consume(queue, "", true, false, false, false, nil); err != nil {
		return err
	}
	// Through a proxy, to count what passes.
	pg, _, err := step.Hosts(l.at.card.Postgres, l.at.card.AMQP)
	if err != nil {
		return err
	}
	proxy, err := wire.New(wire.Config{Postgres: pg, MaxTrace: 1})
	if err != nil {
		return err
	}
	defer proxy.Close()
	lane, err := proxy.Lane()
	if err != nil {
		return err
	}
	url, err := postgres.URL(l.at.card.Postgres, postgres.Change{Address: lane.Postgres(), Params: map[string]string{"sslmode": "disable"}})
	if err != nil {
		return err
	}
	db, err := postgres.Open(l.ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := broker.Dial(l.ctx, l.at.card.AMQP)
	if err != nil {
		return err
	}
	defer conn.Close()

	ctx, stop := context.WithCancel(l.ctx)
	m.ended = make(chan error, 1)
	go func() { m.ended <- relay(ctx, db, conn) }()
	err = m.events(proxy)
	stop()
	if err != nil {
		return err
	}
	select {
	case err := <-m.ended:
		if err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("the relay returned: %w", err)
		}
		return nil
	case <-time.After(arriveWithin):
		return errors.New("the relay does not stop when its context ends")
	}
}

// events sends the events and waits for them.
func (m *measurement) events(proxy *wire.Proxy) error {
	ctx := m.lab.ctx
	// The first one tells that the relay is at work. It does not count.
	if err := m.send(ctx); err != nil {
		return err
	}
	if err := m.await(ctx); err != nil {
		return err
	}
	m.got.MS = nil
	for range measuredEvents {
		if err := m.send(ctx); err != nil {
			return err
		}
		if err := m.pause(ctx, rand.N(2*measuredGap)); err != nil {
			return err
		}
	}
	if err := m.await(ctx); err != nil {
		return err
	}
	if err := m.pause(ctx, settleFor); err != nil {
		return err
	}
	before, began := proxy.Steps(), time.Now()
	if err := m.pause(ctx, idleFor); err != nil {
		return err
	}
	// Each message of the relay's has one answer.
	m.got.Idle = float64(proxy.Steps()-before) / 2 / time.Since(began).Seconds()
	return nil
}

func (m *measurement) send(ctx context.Context) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	m.sent[id.String()] = time.Now()
	if err := m.enqueue(ctx, m.lab.DB(), id); err != nil {
		return fmt.Errorf("store an event: %w", err)
	}
	return nil
}

// pause waits for d, taking in what arrives.
func (m *measurement) pause(ctx context.Context, d time.Duration) error {
	return m.take(ctx, time.After(d), false)
}

// await waits until all events have arrived.
func (m *measurement) await(ctx context.Context) error {
	if err := m.take(ctx, time.After(arriveWithin), true); err != nil {
		return err
	}
	if len(m.sent) > 0 {
		return fmt.Errorf("after %v, %s did not arrive", arriveWithin, count(len(m.sent), "event"))
	}
	return nil
}

func (m *measurement) take(ctx context.Context, over <-chan time.Time, all bool) error {
	for !all || len(m.sent) > 0 {
		select {
		case d, ok := <-m.arrivals:
			if !ok {
				return errors.New("the connection to RabbitMQ broke")
			}
			if began, ok := m.sent[d.MessageId]; ok { // the first of its kind
				delete(m.sent, d.MessageId)
				m.got.MS = append(m.got.MS, float64(time.Since(began).Microseconds())/1000)
			}
		case err := <-m.ended:
			m.ended <- err
			return fmt.Errorf("the relay returned before it was asked to: %w", errors.Join(err, errors.New("see above")))
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
