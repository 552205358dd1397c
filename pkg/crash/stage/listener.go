package stage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// barrierType marks the messages by which a Listener knows how far it has read.
const barrierType = "crashcourse.barrier"

// Listener records every message that reaches a queue of its own, bound to an
// exchange. It may be used from several goroutines.
type Listener struct {
	channel  *amqp.Channel
	exchange string
	queue    string

	mu       sync.Mutex
	arrived  []amqp.Delivery
	barriers map[string]bool
}

// Listen declares a durable topic exchange and a queue that is bound to it by
// keys, and records what arrives there. Without keys nothing does until
// [Listener.Bind].
func Listen(conn *amqp.Connection, exchange string, keys ...string) (_ *Listener, err error) {
	l := &Listener{exchange: exchange, queue: "judge." + strings.ToLower(rand.Text()), barriers: map[string]bool{}}
	if l.channel, err = conn.Channel(); err != nil {
		return nil, fmt.Errorf("stage: open the judge's channel: %w", err)
	}
	defer func() {
		if err != nil {
			_ = l.channel.Close()
		}
	}()
	if err := l.channel.ExchangeDeclare(exchange, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
		return nil, fmt.Errorf("stage: declare the exchange %s: %w", exchange, err)
	}
	if _, err := l.channel.QueueDeclare(l.queue, false, true, true, false, nil); err != nil {
		return nil, fmt.Errorf("stage: declare the judge's queue: %w", err)
	}
	if err := l.Bind(keys...); err != nil {
		return nil, err
	}
	in, err := l.channel.Consume(l.queue, "", true, true, false, false, nil)
	if err != nil {
		return nil, fmt.Errorf("stage: consume the judge's queue: %w", err)
	}
	go func() {
		for d := range in {
			l.mu.Lock()
			if d.Type == barrierType && d.Exchange == "" {
				l.barriers[d.MessageId] = true
			} else {
				l.arrived = append(l.arrived, d)
			}
			l.mu.Unlock()
		}
	}()
	return l, nil
}

// Bind binds the queue to the exchange by more keys.
func (l *Listener) Bind(keys ...string) error {
	for _, k := range keys {
		if err := l.channel.QueueBind(l.queue, k, l.exchange, false, nil); err != nil {
			return fmt.Errorf("stage: bind the judge's queue: %w", err)
		}
	}
	return nil
}

// Arrived returns what has arrived so far, in that order. It copies nothing, so it
// is only to be read: scenarios ask for it after every message on the wires.
func (l *Listener) Arrived() []amqp.Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.arrived) // what comes later is appended behind it
}

// Lost returns an error when the listener's channel is closed: then what it has
// recorded says nothing about an answer.
func (l *Listener) Lost() error {
	if l.channel.IsClosed() {
		return errors.New("stage: the judge lost its connection to RabbitMQ")
	}
	return nil
}

// Sync waits until everything that reached the queue before is in
// [Listener.Arrived].
func (l *Listener) Sync(ctx context.Context) error {
	id := rand.Text()
	if err := l.channel.PublishWithContext(ctx, "", l.queue, false, false, amqp.Publishing{Type: barrierType, MessageId: id}); err != nil {
		return fmt.Errorf("stage: publish a barrier: %w", err)
	}
	for {
		l.mu.Lock()
		done := l.barriers[id]
		l.mu.Unlock()
		if done {
			return nil
		}
		if err := l.Lost(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stage: wait for a barrier: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// Close removes the queue.
func (l *Listener) Close() {
	_, _ = l.channel.QueueDelete(l.queue, false, false, false) // it goes with the connection anyway
	_ = l.channel.Close()
}
