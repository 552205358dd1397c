// Package link keeps a connection to the broker, and makes it again when it is
// lost.
package link

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Link is a connection to the broker, shared by all that open channels on it.
type Link struct {
	owner   string
	dial    func(context.Context) (*amqp.Connection, error) // nil: conn is lent
	closed  error
	blocked atomic.Bool
	dialled atomic.Int64

	mu   sync.Mutex
	conn *amqp.Connection
}

// New returns a link over conn, which is lent, or over the connections that dial
// makes. Its errors begin with the name of the package that owns it. Once a lent
// connection is closed, Channel returns the error closed.
func New(owner string, conn *amqp.Connection, dial func(context.Context) (*amqp.Connection, error), closed error) *Link {
	l := &Link{owner: owner, dial: dial, conn: conn, closed: closed}
	if l.conn != nil {
		l.watch(l.conn)
	}
	return l
}

// Blocked tells that the broker has said that it reads no more from the
// connection.
func (l *Link) Blocked() bool { return l.blocked.Load() }

// Dialled returns how often a connection was made.
func (l *Link) Dialled() uint64 { return uint64(l.dialled.Load()) }

// Channel opens a channel, over a new connection if the old one is closed.
func (l *Link) Channel(ctx context.Context) (*amqp.Channel, error) {
	conn, err := l.connection(ctx)
	if err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("%s: open a channel to the broker: %w", l.owner, err)
	}
	return ch, nil
}

func (l *Link) connection(ctx context.Context) (*amqp.Connection, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil && !l.conn.IsClosed() {
		return l.conn, nil
	}
	if l.dial == nil {
		return nil, l.closed
	}
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: connect to the broker: %w", l.owner, err)
	}
	l.dialled.Add(1)
	l.conn = conn
	l.watch(conn)
	return conn, nil
}

// watch follows whether the broker reads from the connection, until that is
// closed: the library waits for whoever has asked to be told.
func (l *Link) watch(conn *amqp.Connection) {
	l.blocked.Store(false)
	told := conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	go func() {
		for b := range told {
			l.blocked.Store(b.Active)
		}
		l.blocked.Store(false)
	}()
}

// Drop gives up a connection that does not answer, so that the next channel
// goes over a new one. A lent one stays open.
func (l *Link) Drop() {
	// The deadline also ends a write that hangs.
	l.closeWithin(100 * time.Millisecond)
}

// Close closes the connection unless it is lent.
func (l *Link) Close() { l.closeWithin(time.Second) }

func (l *Link) closeWithin(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dial != nil && l.conn != nil {
		_ = l.conn.CloseDeadline(time.Now().Add(d))
	}
}
