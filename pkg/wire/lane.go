package wire

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Lane is the way of one process to the servers: addresses that it dials, and
// what has become of the connections made there.
type Lane struct {
	proxy   *Proxy
	process int
	pg      net.Listener
	amqp    net.Listener
	http    map[string]net.Listener // by the service's name
	frozen  atomic.Bool             // set under the ordering lock
	wg      sync.WaitGroup

	ctx    context.Context // ends when the lane closes: dials stop
	cancel context.CancelFunc
	stop   chan struct{} // closed when the lane freezes or closes: holds end
	ended  chan struct{} // closed when every connection has ended

	// Guarded by the ordering lock.
	closing bool
	stopped bool
	conns   map[*conn]struct{}
	opened  map[Protocol]int
}

func openLane(p *Proxy) (*Lane, error) {
	l := &Lane{
		proxy:  p,
		stop:   make(chan struct{}),
		ended:  make(chan struct{}),
		conns:  make(map[*conn]struct{}),
		opened: make(map[Protocol]int),
		http:   make(map[string]net.Listener),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if err := l.listen(); err != nil {
		l.closeListeners()
		return nil, fmt.Errorf("wire: open an address for a process: %w", err)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		l.closeListeners()
		return nil, errors.New("wire: the proxy is closed: make a new one")
	}
	p.lanes = append(p.lanes, l)
	l.process = len(p.lanes)
	if l.pg != nil {
		l.wg.Go(func() { l.accept(l.pg, PG, "") })
	}
	if l.amqp != nil {
		l.wg.Go(func() { l.accept(l.amqp, AMQP, "") })
	}
	for name, ln := range l.http {
		l.wg.Go(func() { l.accept(ln, HTTP, name) })
	}
	return l, nil
}

// listen opens an address for each server.
func (l *Lane) listen() (err error) {
	const free = "127.0.0.1:0"
	if l.proxy.cfg.Postgres != "" {
		if l.pg, err = net.Listen("tcp", free); err != nil {
			return err
		}
	}
	if l.proxy.cfg.AMQP != "" {
		if l.amqp, err = net.Listen("tcp", free); err != nil {
			return err
		}
	}
	for name := range l.proxy.cfg.Services {
		ln, err := net.Listen("tcp", free)
		if err != nil {
			return err
		}
		l.http[name] = ln
	}
	return nil
}

// Process returns the number of the process that the lane is for.
func (l *Lane) Process() int { return l.process }

// Postgres returns the "host:port" that stands for PostgreSQL, or "".
func (l *Lane) Postgres() string { return address(l.pg) }

// AMQP returns the "host:port" that stands for the broker, or "".
func (l *Lane) AMQP() string { return address(l.amqp) }

// Service returns the "host:port" that stands for the service of that name, or
// "".
func (l *Lane) Service(name string) string { return address(l.http[name]) }

// Services returns the names of the services, sorted.
func (l *Lane) Services() []string { return slices.Sorted(maps.Keys(l.http)) }

// Unanswered returns how many HTTP requests of the lane's have been forwarded
// and not answered yet. Those on a connection that its client has left count
// until the service has ended it, and none counts when the lane is closed.
func (l *Lane) Unanswered() (n int) {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	for c := range l.conns {
		if c.session != nil && !c.over {
			n += c.session.unanswered()
		}
	}
	return n
}

func address(ln net.Listener) string {
	if ln == nil {
		return ""
	}
	return ln.Addr().String()
}

// Frozen tells whether the lane was frozen, by [Freeze] or by [Lane.Freeze].
func (l *Lane) Frozen() bool { return l.frozen.Load() }

// Freeze stops the lane at once, as the action [Freeze] does at a message:
// nothing passes any more, either way. Messages held back are dropped.
func (l *Lane) Freeze() {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	l.freeze()
}

// freeze is called under the ordering lock.
func (l *Lane) freeze() {
	l.frozen.Store(true)
	l.endHolds()
}

// EndIdle breaks the process's PostgreSQL sessions that are idle outside of a
// transaction, as a server with idle_session_timeout does, or a firewall that
// forgets quiet connections. It returns how many there were. What they held goes
// with them: advisory locks, LISTEN, prepared statements.
func (l *Lane) EndIdle() int {
	l.proxy.mu.Lock()
	var idle []*conn
	for c := range l.conns {
		if s, ok := c.session.(*pgSession); ok && !c.left && s.idle() {
			c.leaveLocked()
			idle = append(idle, c)
		}
	}
	l.proxy.mu.Unlock()
	for _, c := range idle {
		c.cut()
	}
	return len(idle)
}

func (l *Lane) endHolds() {
	if !l.stopped {
		l.stopped = true
		close(l.stop)
	}
}

// Close ends the lane and lets the servers take notice. It returns as soon as
// they have ended all its sessions, so that locks are released, transactions
// rolled back and unsettled deliveries back in their queues.
//
// Of a lane that is not frozen, what its process had already sent still passes:
// all of it when the process has ended before, as the kernel would deliver it.
// Then the servers deal with all that was forwarded. PostgreSQL finds the end of
// the stream once it has answered what was sent before; a statement that runs
// for longer than a quarter of a second, for it waits for a lock perhaps, is not
// waited for. A broker is asked to close the connection, which ends the channels
// in order. Messages held back are dropped.
//
// A service gets the same quarter of a second to answer the requests that have
// reached it, and is then told that the client has gone. What it goes on doing
// the proxy cannot see; it waits until the service has closed the connection,
// which Go's net/http does when the handler has returned.
//
// When ctx ends first, the connections left are broken off, and the error says
// how many. Close may be called again, from anywhere.
func (l *Lane) Close(ctx context.Context) error {
	p := l.proxy
	p.mu.Lock()
	first := !l.closing
	l.closing = true
	conns := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.endHolds()
	p.mu.Unlock()

	if first {
		l.cancel()
		l.closeListeners()
		for _, c := range conns {
			// Wakes the pumps that read from the client or write to it.
			_ = c.client.SetDeadline(time.Unix(1, 0))
		}
		go func() {
			l.wg.Wait()
			close(l.ended)
		}()
	}
	select {
	case <-l.ended:
		return nil
	case <-ctx.Done():
	}

	p.mu.Lock()
	left := len(l.conns)
	for c := range l.conns {
		c.breakOff()
	}
	p.mu.Unlock()
	<-l.ended
	if left == 0 {
		return nil
	}
	return fmt.Errorf("wire: close process %d: %d connections were broken off because their server had not ended them: %w",
		l.process, left, context.Cause(ctx))
}

func (l *Lane) closeListeners() {
	for _, ln := range append(slices.Collect(maps.Values(l.http)), l.pg, l.amqp) {
		if ln != nil {
			_ = ln.Close()
		}
	}
}

// accept serves the connections that arrive at an address.
func (l *Lane) accept(ln net.Listener, proto Protocol, name string) {
	for {
		client, err := ln.Accept()
		if err != nil {
			if l.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: others may be freed.
			l.proxy.log.Error("wire: accept a connection", "process", l.process, "protocol", string(proto), "error", err)
			select {
			case <-time.After(10 * time.Millisecond):
			case <-l.ctx.Done():
			}
			continue
		}
		c := newConn(l, proto, name, client)
		l.proxy.mu.Lock()
		if l.closing {
			l.proxy.mu.Unlock()
			_ = client.Close()
			return
		}
		l.conns[c] = struct{}{}
		l.wg.Go(c.serve)
		l.proxy.mu.Unlock()
	}
}
