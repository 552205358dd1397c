package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/step"
)

// Exchange is the topic exchange that all queues of a notebook are bound to.
const Exchange = "events"

// Queue makes a durable queue and binds it to the exchange events, for messages
// whose routing key fits key: "order.placed", or "order.#" for all that begin
// with order.
func (l *Lab) Queue(name, key string) {
	if l.role != nil {
		return
	}
	if err := l.makeQueue(name, key); err != nil {
		l.fail(fmt.Errorf("lab: make queue %s: %w", name, err))
	}
}

func (l *Lab) makeQueue(name, key string) error {
	ch, err := l.Conn().Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	if err := ch.ExchangeDeclare(Exchange, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(name, true, false, false, false, nil); err != nil {
		return err
	}
	return ch.QueueBind(name, key, Exchange, false, nil)
}

// Publish publishes messages to the exchange events, one after the other. It
// returns when RabbitMQ has confirmed them all, and ends the cell if no queue takes
// one of them.
func (l *Lab) Publish(key string, messages ...amqp.Publishing) {
	if l.role != nil {
		return
	}
	if err := l.publish(key, messages); err != nil {
		l.fail(fmt.Errorf("lab: publish %s: %w", key, err))
	}
}

func (l *Lab) publish(key string, messages []amqp.Publishing) error {
	ch, err := l.Conn().Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	if err := ch.Confirm(false); err != nil {
		return err
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, len(messages)))
	var confirms []*amqp.DeferredConfirmation
	for _, m := range messages {
		c, err := ch.PublishWithDeferredConfirmWithContext(l.ctx, Exchange, key, true, false, m)
		if err != nil {
			return err
		}
		confirms = append(confirms, c)
	}
	for _, c := range confirms {
		ok, err := c.WaitContext(l.ctx)
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("RabbitMQ refuses a message")
		}
	}
	if len(returns) > 0 { // a message comes back before its confirm
		return errors.New("no queue is bound for it")
	}
	return nil
}

// Purge empties a queue.
func (l *Lab) Purge(queue string) {
	if l.role != nil {
		return
	}
	ch, err := l.Conn().Channel()
	if err == nil {
		_, err = ch.QueuePurge(queue, false)
	}
	if err != nil {
		l.fail(fmt.Errorf("lab: empty queue %s: %w", queue, err))
	}
	_ = ch.Close()
}

// Message is a message in a queue.
type Message struct {
	ID   string // message ID, set by whoever published it
	Key  string // routing key
	Body string
	// Note says what is odd about it: that its ID has been seen before, or that
	// one of the same order with a higher number stands before it. For the latter
	// the body must be JSON with the fields order and n.
	Note string
}

// maxMessages is how many messages Peek looks at.
const maxMessages = 500

// Peek shows the messages in a queue, first the one that a consumer would get
// next, and leaves them there.
func (l *Lab) Peek(queue string) []Message {
	if l.role != nil {
		return nil
	}
	all, err := l.peek(queue)
	if err != nil {
		l.fail(fmt.Errorf("lab: look into queue %s: %w", queue, err))
	}
	g := &grid{caption: fmt.Sprintf("queue %s: %s", queue, count(len(all), "message")), columns: []string{"", "routing key", "message id", "body"}}
	for _, m := range all {
		g.notes = g.notes || m.Note != ""
	}
	if g.notes {
		g.columns = append(g.columns, "note")
	}
	for i, m := range all {
		if i == maxRows {
			g.more = len(all) - maxRows
			break
		}
		row := []string{fmt.Sprint(i + 1), m.Key, step.ShortID(m.ID), step.Shorten(m.Body, 80)}
		if g.notes {
			row = append(row, m.Note)
		}
		g.rows = append(g.rows, row)
	}
	l.out.show(framed(g.html()), g.text())
	return all
}

// peek takes all messages and gives them back.
func (l *Lab) peek(queue string) ([]Message, error) {
	ch, err := l.Conn().Channel()
	if err != nil {
		return nil, err
	}
	defer ch.Close()
	var all []Message
	var last uint64
	for len(all) < maxMessages {
		d, ok, err := ch.Get(queue, false)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		last = d.DeliveryTag
		body := string(d.Body)
		if !utf8.ValidString(body) {
			body = fmt.Sprintf("<%d bytes>", len(d.Body))
		}
		all = append(all, Message{ID: d.MessageId, Key: d.RoutingKey, Body: body})
	}
	if last > 0 {
		if err := ch.Nack(last, true, true); err != nil {
			return nil, err
		}
		if err := waitFor(l.ctx, func() (bool, error) {
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			return q.Messages >= len(all), err
		}); err != nil {
			return nil, fmt.Errorf("put the messages back: %w", err)
		}
	}
	note(all)
	return all, nil
}

// note fills in what is odd.
func note(all []Message) {
	first := map[string]int{}
	highest := map[string]int{}
	for i := range all {
		m := &all[i]
		var notes []string
		n, seen := first[m.ID]
		if seen && m.ID != "" {
			notes = append(notes, fmt.Sprintf("again: same id as %d", n))
		} else {
			first[m.ID] = i + 1
		}
		var body struct {
			Order string
			N     int
		}
		if json.Unmarshal([]byte(m.Body), &body) == nil && body.N > 0 {
			if !seen && body.N < highest[body.Order] {
				notes = append(notes, fmt.Sprintf("too late: after n=%d of order %s", highest[body.Order], body.Order))
			}
			highest[body.Order] = max(highest[body.Order], body.N)
		}
		m.Note = strings.Join(notes, "; ")
	}
}

// waitFor asks again and again, for at most five seconds.
func waitFor(ctx context.Context, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		ok, err := ask()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
