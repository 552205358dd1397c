package outbox

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// poll starts a goroutine for each partition, and one that wakes them.
func (r *Relay) poll(ctx context.Context, g *errgroup.Group) {
	wakes := make([]chan struct{}, r.o.Partitions)
	for p := range wakes {
		wakes[p] = make(chan struct{}, 1)
		g.Go(func() error { return r.partition(ctx, p, wakes[p]) })
	}
	if r.o.Source == Notify {
		g.Go(func() error {
			return r.listen(ctx, func() {
				for _, wake := range wakes {
					select {
					case wake <- struct{}{}:
					default: // it has one to come already
					}
				}
			})
		})
	}
}

// partition publishes the events of one partition, batch after batch.
func (r *Relay) partition(ctx context.Context, p int, wake <-chan struct{}) error {
	var pub publisher
	defer pub.close()
	failures := 0
	for ctx.Err() == nil {
		n, quiet, err := r.pass(ctx, &pub, p)
		wait := r.o.PollInterval
		switch {
		case errors.Is(err, errBusy):
			failures = 0
		case fatal(err):
			return err
		case err != nil && ctx.Err() == nil:
			failures++
			r.again(ctx, "publish a batch", err, failures)
			continue
		case n > 0:
			failures = 0
			continue
		default:
			failures = 0
			if r.o.Source == Notify && !quiet {
				wait = min(wait, time.Millisecond) // nobody may wake us for what is being committed
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-wake:
		case <-pub.broken():
			pub.w = nil // the next pass opens another, or finds out that it cannot
		}
		timer.Stop()
	}
	return nil
}

// pass publishes one batch. It returns how many events were settled, and whether
// nobody was committing any when they were read.
func (r *Relay) pass(ctx context.Context, pub *publisher, p int) (n int, quiet bool, err error) {
	if r.link.Blocked() {
		return 0, true, nil
	}
	w, err := pub.window(ctx, r)
	if err != nil {
		return 0, false, err
	}
	b, err := r.begin(ctx, p, r.o.Partitions, pendingSQL)
	if err != nil {
		return 0, false, err
	}
	defer b.end()
	if len(b.messages) == 0 {
		return 0, b.quiet, nil
	}
	w.size = r.o.Batch
	if pub.careful {
		w.size = 1
	}
	err = pub.done(b.publish(ctx, w))
	return len(b.sent) + len(b.refused), b.quiet, errors.Join(err, b.commit())
}

// publisher keeps a window open from batch to batch.
type publisher struct {
	w *window
	// careful asks for one message at a time: the broker has closed the channel
	// because of one of several.
	careful bool
}

func (p *publisher) window(ctx context.Context, r *Relay) (*window, error) {
	if p.w == nil {
		w, err := r.openWindow(ctx)
		if err != nil {
			return nil, err
		}
		p.w = w
	}
	return p.w, nil
}

// done takes the error of using the window, and returns it.
func (p *publisher) done(err error) error {
	if err != nil {
		// Closing may hang, and what is still to come no longer matters.
		go p.w.close()
		p.w, p.careful = nil, faultOfMessage(err)
	}
	return err
}

// broken is readable once the window's channel is closed.
func (p *publisher) broken() <-chan *amqp.Error {
	if p.w == nil {
		return nil
	}
	return p.w.closed
}

func (p *publisher) close() {
	if p.w != nil {
		p.w.close()
	}
}
