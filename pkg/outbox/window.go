package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/internal/link"
)

// window publishes messages over one channel, so that at most size of them are
// unconfirmed at a time and, unless pipeline is set, at most one of each
// aggregate: no event is on its way while an earlier one of its aggregate may
// yet be refused. It belongs to one goroutine.
type window struct {
	link     *link.Link
	ch       *amqp.Channel
	exchange string
	prepare  func(Message, *amqp.Publishing)
	size     int
	pipeline bool
	timeout  time.Duration

	confirms chan amqp.Confirmation // closed with the channel
	returns  chan amqp.Return
	closed   chan *amqp.Error

	ready    []*Message            // to publish as soon as there is room
	behind   map[string][]*Message // by aggregate with one ready or unconfirmed: what has to wait for that
	inflight map[uint64]flight     // unconfirmed, by delivery tag
	returned map[string]string     // message ID to reason: came back, the confirm follows
	last     time.Time             // when the first of inflight was published, or the last confirm came
}

// flight is a message on its way.
type flight struct {
	*Message
	// acked says what the broker said, once it has. What the library sends to
	// confirms cannot be trusted for that: a basic.nack that comes before the
	// confirms of earlier messages is told as an ack when those come together
	// (amqp091-go v1.16.0, confirms.Multiple).
	acked func() bool
}

// outcome is what became of a message.
type outcome struct {
	*Message
	refusal  string     // why the broker does not have it; "" if it does
	returned bool       // because no queue is bound for it
	dropped  []*Message // later ones of the aggregate, which were not published
}

// openWindow opens a channel for a window.
func (r *Relay) openWindow(ctx context.Context) (*window, error) {
	ch, err := r.link.Channel(ctx)
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return nil, fmt.Errorf("outbox: switch the channel to confirms: %w", err)
	}
	// The library waits for whoever it has to tell. These channels have room for
	// all that can come.
	return &window{
		link: r.link, ch: ch, exchange: r.o.Exchange, prepare: r.o.Prepare,
		size: r.o.Batch, pipeline: r.o.Pipeline, timeout: r.o.Timeout,
		confirms: ch.NotifyPublish(make(chan amqp.Confirmation, r.o.Batch)),
		returns:  ch.NotifyReturn(make(chan amqp.Return, r.o.Batch)),
		closed:   ch.NotifyClose(make(chan *amqp.Error, 1)),
		behind:   map[string][]*Message{}, inflight: map[uint64]flight{}, returned: map[string]string{},
	}, nil
}

// close closes the channel. What is unconfirmed may or may not arrive. It waits
// for the broker, so it hangs if that does not answer.
func (w *window) close() { _ = w.ch.Close() }

// add queues a message behind those of its aggregate.
func (w *window) add(m *Message) {
	if !w.pipeline {
		if queue, busy := w.behind[m.AggregateID]; busy {
			w.behind[m.AggregateID] = append(queue, m)
			return
		}
		w.behind[m.AggregateID] = nil
	}
	w.ready = append(w.ready, m)
}

// full tells that no more can be published before a confirm comes.
func (w *window) full() bool { return len(w.inflight) >= w.size }

// idle tells that nothing is unconfirmed or waiting.
func (w *window) idle() bool { return len(w.inflight) == 0 && len(w.ready) == 0 }

// forget takes back what has not been published yet.
func (w *window) forget() {
	w.ready = nil
	clear(w.behind)
	if !w.pipeline {
		for _, f := range w.inflight {
			w.behind[f.AggregateID] = nil
		}
	}
}

// pump publishes what is ready, as far as there is room.
func (w *window) pump() error {
	for len(w.ready) > 0 && !w.full() && !w.link.Blocked() {
		m := w.ready[0]
		w.ready = w.ready[1:]
		if len(w.inflight) == 0 {
			w.last = time.Now()
		}
		confirm, err := w.ch.PublishWithDeferredConfirm(w.exchange, m.Type, true, false, m.publishing(w.prepare))
		if err != nil {
			return w.failure(fmt.Errorf("outbox: publish event %d: %w", m.Seq, err))
		}
		w.inflight[confirm.DeliveryTag] = flight{m, confirm.Acked}
	}
	return nil
}

// settle takes in a confirm and says what became of its message.
func (w *window) settle(c amqp.Confirmation, open bool) (outcome, error) {
	if !open {
		return outcome{}, w.failure(errors.New("outbox: the broker closed the channel"))
	}
	w.last = time.Now()
	// A message that comes back does so before it is confirmed.
	for more := true; more; {
		select {
		case r, open := <-w.returns:
			if more = open; open {
				w.returned[r.MessageId] = fmt.Sprintf("returned: %d %s", r.ReplyCode, r.ReplyText)
			}
		default:
			more = false
		}
	}
	sent, known := w.inflight[c.DeliveryTag]
	if !known {
		return outcome{}, fmt.Errorf("outbox: the broker confirmed message %d, which was not published", c.DeliveryTag)
	}
	delete(w.inflight, c.DeliveryTag)
	m := sent.Message
	o := outcome{Message: m}
	if len(w.returned) > 0 {
		id := m.ID.String()
		if o.refusal, o.returned = w.returned[id]; o.returned {
			delete(w.returned, id)
		}
	}
	if !o.returned && !sent.acked() {
		o.refusal = "nacked by the broker"
	}
	if w.pipeline {
		return o, nil
	}
	queue := w.behind[m.AggregateID]
	switch {
	case o.refusal != "" || len(queue) == 0:
		o.dropped = queue
		delete(w.behind, m.AggregateID)
	default:
		w.ready = append(w.ready, queue[0])
		w.behind[m.AggregateID] = queue[1:]
	}
	return o, nil
}

// overdue tells that the broker has not confirmed anything for too long.
func (w *window) overdue() error {
	if len(w.inflight) == 0 || time.Since(w.last) <= w.timeout {
		return nil
	}
	if w.link.Blocked() {
		return fmt.Errorf("outbox: the broker takes no messages: %d are unconfirmed for %v", len(w.inflight), w.timeout)
	}
	w.link.Drop()
	return fmt.Errorf("outbox: the broker has not confirmed any of %d messages for %v: the connection counts as lost", len(w.inflight), w.timeout)
}

// failure adds to err why the channel was closed.
func (w *window) failure(err error) error {
	select {
	case e, open := <-w.closed: // the reason is on its way
		if open {
			return fmt.Errorf("%w: %w", err, e)
		}
	case <-time.After(time.Second):
	}
	return err
}

// suspect returns the message for whose sake the broker has closed the channel
// with err, if that is certain.
func (w *window) suspect(err error) *Message {
	if !faultOfMessage(err) || len(w.inflight) != 1 {
		return nil
	}
	for _, f := range w.inflight {
		return f.Message
	}
	return nil
}

// faultOfMessage tells that the broker has closed the channel because of
// something that was published over it: a message that is too large, a routing
// key that the user may not use.
func faultOfMessage(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && (e.Code == amqp.PreconditionFailed || e.Code == amqp.AccessRefused || e.Code == amqp.ContentTooLarge)
}
