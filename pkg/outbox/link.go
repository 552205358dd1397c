package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// ErrConnClosed is wrapped by the error of [Relay.Run] when the connection that
// it was lent, Options.Conn, is closed.
var ErrConnClosed = errors.New("outbox: the connection to the broker is closed")

// link is the relay's connection to the broker, shared by all that publish.
type link struct {
	dial    func(context.Context) (*amqp.Connection, error) // nil: conn is lent
	blocked atomic.Bool                                     // the broker has said that it reads no more
	dialled atomic.Int64                                    // how often

	mu   sync.Mutex
	conn *amqp.Connection
}

func newLink(o Options) *link {
	l := &link{dial: o.Dial, conn: o.Conn}
	if l.conn != nil {
		l.watch(l.conn)
	}
	return l
}

// channel opens a channel in confirm mode, over a new connection if the old
// one is closed.
func (l *link) channel(ctx context.Context) (*amqp.Channel, error) {
	conn, err := l.connection(ctx)
	if err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("outbox: open a channel to the broker: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return nil, fmt.Errorf("outbox: switch the channel to confirms: %w", err)
	}
	return ch, nil
}

func (l *link) connection(ctx context.Context) (*amqp.Connection, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil && !l.conn.IsClosed() {
		return l.conn, nil
	}
	if l.dial == nil {
		return nil, ErrConnClosed
	}
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("outbox: connect to the broker: %w", err)
	}
	l.dialled.Add(1)
	l.conn = conn
	l.watch(conn)
	return conn, nil
}

// watch follows whether the broker reads from the connection, until that is
// closed: the library waits for whoever has asked to be told.
func (l *link) watch(conn *amqp.Connection) {
	l.blocked.Store(false)
	told := conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	go func() {
		for b := range told {
			l.blocked.Store(b.Active)
		}
		l.blocked.Store(false)
	}()
}

// drop gives up a connection that does not answer, so that the next channel
// goes over a new one. A lent one stays open.
func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dial != nil && l.conn != nil {
		// The deadline also ends a write that hangs.
		_ = l.conn.CloseDeadline(time.Now().Add(100 * time.Millisecond))
	}
}

// close closes the connection unless it is lent.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dial != nil && l.conn != nil {
		_ = l.conn.CloseDeadline(time.Now().Add(time.Second))
	}
}
