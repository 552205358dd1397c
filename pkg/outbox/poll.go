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
	settled := false // whoever commits from now on will wake us
	for ctx.Err() == nil {
		n, err := r.pass(ctx, &pub, p)
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
			failures, settled = 0, false
			continue
		default:
			failures = 0
			if r.o.Source == Notify && !settled {
				if settled = r.quiet(); settled {
					continue // one more look
				}
				wait = min(wait, time.Millisecond)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-wake:
			settled = false
		case <-pub.broken():
			pub.w = nil // the next pass opens another, or finds out that it cannot
		}
		timer.Stop()
	}
	return nil
}

// quiet tells that no transaction is committing events in this moment: one that
// does may have left the NOTIFY to another, see the trigger.
func (r *Relay) quiet() (free bool) {
	op, cancel := r.operation()
	defer cancel()
	err := r.pool.QueryRow(op, `SELECT pg_try_advisory_xact_lock(hashtext('outbox.commit'), 'outbox'::regclass::oid::integer)`).Scan(&free)
	return free || err != nil // the next pass will run into the error
}

// pass publishes one batch and returns how many events were settled.
func (r *Relay) pass(ctx context.Context, pub *publisher, p int) (int, error) {
	if r.link.blocked.Load() {
		return 0, nil
	}
	w, err := pub.window(ctx, r)
	if err != nil {
		return 0, err
	}
	b, err := r.begin(ctx, p, r.o.Partitions, pendingSQL)
	if err != nil {
		return 0, err
	}
	defer b.end()
	if len(b.messages) == 0 {
		return 0, nil
	}
	w.size = r.o.Batch
	if pub.careful {
		w.size = 1
	}
	err = pub.done(b.publish(ctx, w))
	return len(b.sent) + len(b.refused), errors.Join(err, b.commit())
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
