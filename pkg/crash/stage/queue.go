package stage

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Queue is a durable queue that a scenario fills and an answer consumes.
type Queue struct {
	channel *amqp.Channel
	name    string
}

// NewQueue makes the queue, with these arguments of the broker's, or empties it if
// it is there. The spec has to list it in Queues.
func NewQueue(conn *amqp.Connection, name string, args amqp.Table) (_ *Queue, err error) {
	q := &Queue{name: name}
	defer func() {
		if err != nil && q.channel != nil {
			_ = q.channel.Close()
		}
	}()
	// Emptying it is a lot quicker than making it anew, which is needed only if an
	// answer has made one that differs.
	for _, anew := range []bool{false, true} {
		if q.channel, err = conn.Channel(); err != nil {
			return nil, fmt.Errorf("stage: open the judge's channel: %w", err)
		}
		if anew {
			if _, err := q.channel.QueueDelete(name, false, false, false); err != nil {
				return nil, fmt.Errorf("stage: remove queue %s: %w", name, err)
			}
		}
		if _, err = q.channel.QueueDeclare(name, true, false, false, false, args); err == nil {
			_, err = q.channel.QueuePurge(name, false)
		}
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stage: make queue %s: %w", name, err)
	}
	if err := q.channel.Confirm(false); err != nil {
		return nil, fmt.Errorf("stage: confirm mode: %w", err)
	}
	return q, nil
}

// Send puts messages into the queue and returns when the broker has them. They are
// not persistent: the broker is not among what crashes, and waiting for its disk
// would only slow the judge down.
func (q *Queue) Send(ctx context.Context, messages ...amqp.Publishing) error {
	var confirms []*amqp.DeferredConfirmation
	for _, m := range messages {
		c, err := q.channel.PublishWithDeferredConfirmWithContext(ctx, "", q.name, false, false, m)
		if err != nil {
			return fmt.Errorf("stage: fill queue %s: %w", q.name, err)
		}
		confirms = append(confirms, c)
	}
	for _, c := range confirms {
		if ok, err := c.WaitContext(ctx); err != nil || !ok {
			return fmt.Errorf("stage: fill queue %s: %w", q.name, errors.Join(err, errors.New("the broker has not confirmed a message")))
		}
	}
	return nil
}

// Touch takes the first n messages and puts them back, where they were: whoever
// gets them finds them marked as redelivered.
func (q *Queue) Touch(n int) error {
	var last amqp.Delivery
	for range n {
		d, ok, err := q.channel.Get(q.name, false)
		if err != nil || !ok {
			return fmt.Errorf("stage: take a message of queue %s: %w", q.name, errors.Join(err, errors.New("it may be empty")))
		}
		last = d
	}
	if n == 0 {
		return nil
	}
	if err := last.Nack(true, true); err != nil {
		return fmt.Errorf("stage: put messages back into queue %s: %w", q.name, err)
	}
	return nil
}

// Ready counts the messages that no consumer has taken.
func (q *Queue) Ready() (int, error) {
	state, err := q.channel.QueueDeclarePassive(q.name, true, false, false, false, nil)
	if err != nil {
		return 0, fmt.Errorf("stage: look into queue %s: %w", q.name, err)
	}
	return state.Messages, nil
}

// Close frees the judge's channel. The queue stays.
func (q *Queue) Close() { _ = q.channel.Close() }
