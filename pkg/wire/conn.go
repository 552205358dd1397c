package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// partingTime bounds how long a cut waits for the client to take what had
// passed before.
const partingTime = 250 * time.Millisecond

// settleTime bounds how long PostgreSQL, or a service, may work on what was
// forwarded before it is told that the client has gone.
const settleTime = 250 * time.Millisecond

// conn is one connection of a process and its counterpart to the server. Two
// goroutines pump it: pumpUp owns all writes to the server and the end of that
// side, pumpDown reads from the server until the server ends the session.
type conn struct {
	lane   *Lane
	proto  Protocol
	name   string // of the service, if the protocol is HTTP
	client net.Conn

	// Set before the pumps start.
	server  net.Conn
	id      int
	session session
	up      *stream
	down    *stream

	gone    chan struct{} // closed when the connection has been left or has ended: holds end
	settled chan struct{} // closed when the server, left, has nothing more to answer, or has ended

	// Guarded by the ordering lock.
	left    bool // nothing passes any more
	over    bool // the server has ended the connection
	quiet   bool // settled is closed
	answers bool // the server answers our goodbye
	polite  bool // let the client close its side
}

func newConn(l *Lane, proto Protocol, name string, client net.Conn) *conn {
	return &conn{lane: l, proto: proto, name: name, client: client, gone: make(chan struct{}), settled: make(chan struct{})}
}

// serve runs the connection until both sides have ended.
func (c *conn) serve() {
	p := c.lane.proxy
	defer func() {
		_ = c.client.Close()
		p.mu.Lock()
		delete(c.lane.conns, c)
		p.mu.Unlock()
	}()
	buf := make([]byte, 0, firstBuffer)
	buf, cancel, err := c.greet(buf)
	if err != nil {
		if !errors.Is(err, io.EOF) && !c.closing() {
			p.log.Warn("wire: connection not understood", "process", c.lane.process, "protocol", string(c.proto), "error", err)
		}
		c.decline(err)
		return
	}
	if c.lane.Frozen() {
		c.idle()
		c.await()
		return
	}
	server, err := p.dial(c.lane.ctx, c.proto, c.name)
	if err != nil {
		p.log.Error("wire: no connection to the server", "process", c.lane.process, "error", err)
		if c.proto == PG && !cancel {
			_, _ = c.client.Write(pgError("FATAL", "08006", err.Error()))
		}
		if c.proto == HTTP {
			reset(c.client)
		}
		return
	}
	defer server.Close()
	if cancel {
		c.cancelRequest(server, buf)
		return
	}
	if !c.start(server, buf) {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.pumpDown()
	}()
	c.pumpUp()
	<-done
}

// start sets the pumps up. It reports false when the lane is closing.
func (c *conn) start(server net.Conn, greeting []byte) bool {
	p := c.lane.proxy
	toServer, toClient := newSink(server), newSink(c.client)
	var up, down codec
	p.mu.Lock()
	defer p.mu.Unlock()
	switch c.proto {
	case PG:
		s := newPGSession(&p.sql, p.cfg.MaxDetail)
		up, down, c.session = &pgUp{s: s}, &pgDown{s: s}, s
	case AMQP:
		s := &amqpSession{channels: make(map[uint16]*amqpChannel)}
		c.session = s
		up, down = newAMQPCodec(s, ToServer, p.cfg.MaxDetail), newAMQPCodec(s, ToClient, p.cfg.MaxDetail)
	case HTTP:
		s := &httpSession{service: c.name}
		c.session = s
		up, down = newHTTPCodec(s, ToServer, p.cfg.MaxDetail), newHTTPCodec(s, ToClient, p.cfg.MaxDetail)
	}
	if c.lane.closing {
		return false
	}
	c.server = server
	c.lane.opened[c.proto]++
	c.id = c.lane.opened[c.proto]
	c.up = newStream(c, ToServer, c.client, toServer, up, greeting)
	c.down = newStream(c, ToClient, server, toClient, down, nil)
	return true
}

// greet reads what a client sends first, up to where the server is needed. A
// request for encryption is refused; most clients then go on without.
func (c *conn) greet(buf []byte) (_ []byte, cancel bool, err error) {
	for {
		if c.proto == AMQP && len(buf) >= 8 {
			return buf, false, checkAMQPHeader(buf)
		}
		if c.proto == HTTP {
			if enough, err := checkHTTP(buf); enough {
				return buf, false, err
			}
		}
		if c.proto == PG {
			n, code, err := framePGStartup(buf)
			switch {
			case err != nil:
				return buf, false, err
			case n == 0:
			case code == pgSSLRequest || code == pgGSSENCRequest:
				buf = buf[:copy(buf, buf[n:])]
				if _, err := c.client.Write([]byte{'N'}); err != nil {
					return buf, false, err
				}
				continue
			default:
				return buf, code == pgCancelRequest, nil
			}
		}
		if len(buf) == cap(buf) {
			return buf, false, errors.New("the greeting is too long")
		}
		n, err := c.client.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil && n == 0 {
			return buf, false, err
		}
	}
}

// cancelRequest forwards a PostgreSQL cancel request and waits until the server
// has taken it. It is recorded as connection 0, and nobody is asked about it.
func (c *conn) cancelRequest(server net.Conn, packet []byte) {
	p := c.lane.proxy
	p.mu.Lock()
	if c.lane.closing || c.lane.Frozen() {
		p.mu.Unlock()
		return
	}
	c.server = server
	m := &Message{
		Point: Point{Process: c.lane.process, Protocol: PG, Dir: ToServer},
		Type:  "CancelRequest", Name: "cancel request", Size: int64(len(packet)),
	}
	if len(packet) >= 12 {
		m.Detail = fmt.Sprintf("backend %d", binary.BigEndian.Uint32(packet[8:]))
	}
	p.rec.add(m)
	if p.cfg.Observe != nil {
		p.cfg.Observe(m)
	}
	p.mu.Unlock()
	if _, err := server.Write(packet); err == nil {
		_, _ = io.Copy(io.Discard, server)
	}
}

// pumpUp forwards what the client sends, until the client or the connection
// ends, and then ends the server's side.
func (c *conn) pumpUp() {
	for c.up.pump() {
		if err := c.up.fill(); err != nil {
			if c.lane.Frozen() || !errors.Is(err, errClosing) {
				break
			}
			c.up.drain()
			break
		}
	}
	if c.keepsSilent() {
		c.idle()
		c.await()
	}
	answers, polite := c.leave()
	_ = c.up.dst.flush()
	if !answers {
		c.settle()
		closeWrite(c.server)
	}
	if polite {
		c.idle()
	}
	_ = c.client.Close()
}

// pumpDown forwards what the server sends, until the server ends the session.
func (c *conn) pumpDown() {
	var err error
	for err == nil {
		c.down.pump()
		if c.noteSettled(); c.hasLeft() {
			// The broker has said that it is done. It would wait for us to close.
			_ = c.server.Close()
		}
		err = c.down.fill()
	}
	_ = c.down.dst.flush()
	if quiet := c.serverEnded(); !quiet {
		if errors.Is(err, io.EOF) {
			closeWrite(c.client)
		} else {
			reset(c.client)
		}
	}
	_ = c.server.Close()
}

// keepsSilent tells whether the server must not learn yet that the client has
// gone: nothing passes in a frozen lane or a blackhole, not even that.
func (c *conn) keepsSilent() bool {
	p := c.lane.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	return !c.left && !c.lane.closing && (c.lane.Frozen() || c.up.swallow == Blackhole)
}

// await waits until the lane closes or the connection has been left.
func (c *conn) await() {
	select {
	case <-c.lane.ctx.Done():
	case <-c.gone:
	}
}

// idle reads and discards until the client ends or the lane closes.
func (c *conn) idle() {
	for {
		// A deadline in the past may have been set to wake this goroutine. Close
		// marks the lane before it sets one, so none is lost.
		_ = c.client.SetReadDeadline(time.Time{})
		if c.closing() {
			return
		}
		if _, err := io.Copy(io.Discard, c.client); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

func (c *conn) closing() bool {
	c.lane.proxy.mu.Lock()
	defer c.lane.proxy.mu.Unlock()
	return c.lane.closing
}

// leave stops all traffic and says goodbye to the server. It tells whether the
// server will answer, and whether to let the client close its side.
func (c *conn) leave() (answers, polite bool) {
	c.lane.proxy.mu.Lock()
	defer c.lane.proxy.mu.Unlock()
	c.leaveLocked()
	return c.answers, c.polite
}

// leaveLocked is leave under the ordering lock. The goodbye is written by pumpUp.
func (c *conn) leaveLocked() {
	if c.left {
		return
	}
	c.left = true
	var goodbye []byte
	goodbye, c.answers = c.session.leave()
	c.up.dst.add(goodbye)
	close(c.gone)
	c.noteSettledLocked()
}

// settle waits until the server has answered all that it was sent and can
// answer. A PostgreSQL with client_connection_check_interval set would drop what
// it has not done yet on finding the connection closed, and a service may end
// the request's context. A statement that takes long, for a lock perhaps, or a slow
// service is not waited for.
func (c *conn) settle() {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-c.settled:
	case <-timer.C:
	}
}

func (c *conn) noteSettled() {
	c.lane.proxy.mu.Lock()
	defer c.lane.proxy.mu.Unlock()
	c.noteSettledLocked()
}

func (c *conn) noteSettledLocked() {
	if c.left && !c.quiet && (c.over || !c.session.busy()) {
		c.quiet = true
		close(c.settled)
	}
}

// hasLeft tells whether the server has answered our goodbye.
func (c *conn) hasLeft() bool {
	c.lane.proxy.mu.Lock()
	defer c.lane.proxy.mu.Unlock()
	return c.left && c.answers && c.session.left()
}

// serverEnded takes in that the server has closed the connection, and tells
// whether the client must not be told.
func (c *conn) serverEnded() (quiet bool) {
	p := c.lane.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	c.over = true
	defer c.noteSettledLocked()
	if c.left {
		return true
	}
	c.left = true
	c.polite = true
	close(c.gone)
	return c.lane.Frozen() || c.down.swallow == Blackhole
}

// cut resets the client's side once it has been given what had passed before.
func (c *conn) cut() {
	_ = c.client.SetWriteDeadline(time.Now().Add(partingTime))
	_ = c.down.dst.flush()
	reset(c.client)
}

// part closes the client's side after a goodbye, and wakes pumpUp.
func (c *conn) part() {
	_ = c.client.SetWriteDeadline(time.Now().Add(partingTime))
	_ = c.down.dst.flush()
	closeWrite(c.client)
	_ = c.client.SetReadDeadline(time.Unix(1, 0))
}

// unheard is called when what the server sends cannot be understood any more,
// so that its answer to our goodbye would not be noticed.
func (c *conn) unheard() func() {
	if !c.answers {
		return nil
	}
	c.answers = false
	return func() { closeWrite(c.server) }
}

// breakOff ends both sides at once.
func (c *conn) breakOff() {
	_ = c.client.Close()
	if c.server != nil {
		_ = c.server.Close()
	}
}

func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = conn.Close()
}

// reset closes a connection so that the peer sees it break.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
