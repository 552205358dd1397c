// Package lifecycle runs the goroutines of a service until its context ends, and
// then lets them finish what they have begun, for a bounded time.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Stop says how to stop.
type Stop struct {
	Timeout time.Duration // how long goroutines may finish what they have begun
	Late    error         // wrapped by Run's error when they take longer
	Drop    func()        // breaks what they may hang in
}

// Run starts goroutines and waits for them. They stop beginning anything new when
// soft ends, as it does with ctx and with the first error of the group, and break
// off when hard does, stop.Timeout later.
func Run(ctx context.Context, stop Stop, start func(soft, hard context.Context, g *errgroup.Group)) error {
	hard, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	g, soft := errgroup.WithContext(ctx)
	ended := make(chan error, 1)
	start(soft, hard, g)
	go func() { ended <- g.Wait() }()
	<-soft.Done()
	select {
	case err := <-ended:
		return err
	case <-time.After(stop.Timeout):
	}
	kill()
	stop.Drop()
	late := fmt.Errorf("%w: it took longer than %v", stop.Late, stop.Timeout)
	select {
	case err := <-ended:
		return errors.Join(late, err)
	case <-time.After(time.Second):
		return late // something hangs, in a connection that was lent for example
	}
}
