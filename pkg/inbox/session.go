package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// session consumes over one channel, for as long as that lives. What was delivered
// over it is settled over it or not at all: when it is gone the broker delivers
// anew what is not settled, and the session is thrown away with all it holds.
type session struct {
	c    *Consumer
	hard context.Context
	ch   *amqp.Channel
	name string // the consumer tag

	arrived   chan amqp.Delivery // closed when no more will come
	closed    chan *amqp.Error
	cancelled chan string
	results   chan *worker
	awake     chan *lane
	gone      chan struct{} // closed when the session is over

	lanes   lanes
	tags    tags
	running int
	settled bool // something
}

// errStop tells that the session ended because it was told to.
var errStop = errors.New("inbox: stopped")

// open opens a channel and begins to consume.
func (c *Consumer) open(ctx, hard context.Context) (*session, error) {
	ch, err := c.link.Channel(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{
		c: c, hard: hard, ch: ch, name: fmt.Sprintf("inbox.%s.%d", c.o.Consumer[:min(len(c.o.Consumer), 100)], c.sessions.Add(1)),
		arrived: make(chan amqp.Delivery, c.o.Prefetch),
		// The library waits for whoever it has to tell. These have room for all.
		closed:    ch.NotifyClose(make(chan *amqp.Error, 1)),
		cancelled: ch.NotifyCancel(make(chan string, 1)),
		results:   make(chan *worker, c.o.Concurrency),
		awake:     make(chan *lane),
		gone:      make(chan struct{}),
		lanes:     lanes{named: map[string]*lane{}},
		tags:      tags{low: 1, settled: map[uint64]bool{}},
	}
	if err := ch.Qos(c.o.Prefetch, 0, false); err != nil {
		s.close()
		return nil, fmt.Errorf("inbox: limit the prefetch: %w", err)
	}
	deliveries, err := ch.Consume(c.o.Queue, s.name, false, false, false, false, nil)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("inbox: consume from queue %q: %w", c.o.Queue, err)
	}
	go func() {
		defer close(s.arrived)
		for d := range deliveries {
			select {
			case s.arrived <- d: // there is room for what is unsettled
			case <-s.gone:
			}
		}
	}()
	return s, nil
}

// run handles messages until ctx ends or the channel does. Then it waits for the
// batches at work, and settles theirs.
func (s *session) run(ctx context.Context) error {
	defer s.end()
	stop, arrived := ctx.Done(), s.arrived
	var over error // why nothing is begun any more
	for {
		if over == nil {
			s.begin()
		} else if s.running == 0 {
			return over
		}
		select {
		case d, open := <-arrived:
			if !open {
				arrived = nil
				if over == nil {
					over = s.reason()
				}
			} else if over == nil {
				s.take(d)
				for range len(arrived) { // as many as are there
					if d, open := <-arrived; open {
						s.take(d)
					}
				}
			}
		case w := <-s.results:
			s.running--
			if err := s.settle(w); err != nil && over == nil {
				over = err
			}
		case la := <-s.awake:
			s.lanes.free(la)
		case <-stop:
			stop = nil
			if over == nil {
				over = errStop
			}
			if s.c.o.Key == nil {
				// With an order to keep, it must not be: the next active consumer of
				// the queue would get what comes next while this one is still at work.
				_ = s.ch.Cancel(s.name, true)
			}
		}
	}
}

// begin gives batches to as many workers as are free.
func (s *session) begin() {
	each := s.c.o.Batch
	if s.c.o.Before != nil {
		each = 1 // it is called before the first of a batch is handled
	}
	for s.running < s.c.o.Concurrency {
		batch := s.lanes.take(s.c.o.Batch, each)
		if len(batch) == 0 {
			return
		}
		s.running++
		go func() {
			w := s.c.newWorker(s.hard)
			w.work(batch)
			s.results <- w
		}()
	}
}

func (s *session) take(d amqp.Delivery) {
	if d.Redelivered {
		s.c.counts.redelivered.Add(1)
	}
	it, key := s.c.newItem(d)
	s.c.hand.add(it)
	s.lanes.add(it, key)
}

// settle acks what is done and puts the rest back.
func (s *session) settle(w *worker) error {
	var acks []uint64
	var err error
	returned, waits := map[*lane][]*item{}, map[*lane]time.Duration{}
	busy := map[*lane]bool{}
	for _, r := range w.results {
		busy[r.lane] = true
		switch r.outcome {
		case handled, duplicate, parked:
			acks = append(acks, r.tag)
		case rejectable:
			// Before the acks: one of several would ack it as well.
			if e := s.ch.Reject(r.tag, false); e != nil && err == nil {
				err = fmt.Errorf("inbox: reject a message: %w", e)
			}
			s.tags.rejected(r.tag)
			s.c.hand.remove(r.item)
		case again:
			waits[r.lane] = max(waits[r.lane], r.wait)
			fallthrough
		default:
			returned[r.lane] = append(returned[r.lane], r.item)
			continue
		}
		s.c.hand.remove(r.item)
		s.settled = true
	}
	for la := range busy {
		s.lanes.back(la, returned[la])
		if wait := waits[la]; wait > 0 {
			time.AfterFunc(wait, func() {
				select {
				case s.awake <- la:
				case <-s.gone:
				}
			})
		} else {
			s.lanes.free(la)
		}
	}
	if err == nil {
		err = s.ack(acks)
	}
	if w.broken != nil {
		return w.broken
	}
	return err
}

func (s *session) ack(handled []uint64) error {
	upTo, others := s.tags.ack(handled)
	if upTo > 0 {
		if err := s.ch.Ack(upTo, true); err != nil {
			return fmt.Errorf("inbox: ack (what is not acked comes again, as duplicates): %w", err)
		}
	}
	for _, tag := range others {
		if err := s.ch.Ack(tag, false); err != nil {
			return fmt.Errorf("inbox: ack (what is not acked comes again, as duplicates): %w", err)
		}
	}
	return nil
}

// reason says why no more deliveries come.
func (s *session) reason() error {
	select {
	case <-s.cancelled:
		return fmt.Errorf("inbox: the broker has cancelled the consumer; queue %q was deleted, or is moving", s.c.o.Queue)
	default:
	}
	select {
	case e, open := <-s.closed:
		if open {
			return fmt.Errorf("inbox: the channel was closed: %w", e)
		}
	case <-time.After(time.Second):
	}
	return errors.New("inbox: the channel was closed")
}

// end closes the channel, so that the broker has dealt with the acks and puts back
// into the queue what is unsettled.
func (s *session) end() {
	close(s.gone)
	s.c.hand.clear()
	s.close()
}

// close closes the channel, and gives the connection up if that takes too long.
func (s *session) close() {
	ended := make(chan struct{})
	go func() { _ = s.ch.Close(); close(ended) }()
	select {
	case <-ended:
		return
	case <-s.hard.Done():
	case <-time.After(s.c.o.Timeout):
	}
	s.c.link.Drop()
}
