package broker

import (
	"net"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// GatherWrites is an option of [Dial] for those who publish much and wait for
// confirms. amqp091-go makes a system call for each message. With this option
// a message that is published while another is being sent waits a few
// microseconds and goes out together with those behind it, which spares the
// client and the broker a good part of their work.
//
// The price: a publish returns before the message has been handed to the
// operating system, so it may return nil although the connection is broken, and
// other connections may be faster. Only a confirm tells that a message has
// arrived, but that is so anyway.
func GatherWrites(c *amqp.Config) {
	dial := c.Dial
	if dial == nil {
		dial = amqp.DefaultDial(DialTimeout)
	}
	c.Dial = func(network, addr string) (net.Conn, error) {
		conn, err := dial(network, addr)
		if err != nil {
			return nil, err
		}
		g := &gatherer{Conn: conn}
		g.change.L = &g.mu
		go g.send()
		return g, nil
	}
}

// maxGathered is how many bytes may wait to be sent before Write blocks.
const maxGathered = 256 << 10

// gatherer is a connection whose writes are sent by a goroutine, as many at once
// as have come while it was busy.
type gatherer struct {
	net.Conn

	mu      sync.Mutex
	change  sync.Cond // of what follows
	waiting []byte
	err     error // of sending; nothing is sent after it
}

// Write queues b. It blocks while too much is queued. It returns the error of an
// earlier write, if there was one.
func (g *gatherer) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.waiting) > maxGathered && g.err == nil {
		g.change.Wait()
	}
	if g.err != nil {
		return 0, g.err
	}
	g.waiting = append(g.waiting, b...)
	g.change.Broadcast()
	return len(b), nil
}

// Close closes the connection. What has not been sent is dropped.
func (g *gatherer) Close() error {
	g.fail(net.ErrClosed)
	return g.Conn.Close()
}

func (g *gatherer) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
	g.change.Broadcast()
}

// send sends what is queued, until that fails or the connection is closed.
func (g *gatherer) send() {
	var batch []byte
	for {
		g.mu.Lock()
		for len(g.waiting) == 0 && g.err == nil {
			g.change.Wait()
		}
		if g.err != nil {
			g.mu.Unlock()
			return
		}
		batch, g.waiting = g.waiting, batch[:0]
		g.change.Broadcast()
		g.mu.Unlock()
		if _, err := g.Conn.Write(batch); err != nil {
			g.fail(err)
			return
		}
	}
}
