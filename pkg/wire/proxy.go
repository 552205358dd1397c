package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultMaxDetail = 512
	defaultMaxTrace  = 20000
	// closeTime is how long Proxy.Close lets the servers end their connections.
	closeTime = 2 * time.Second
	dialTime  = 5 * time.Second
)

// Config says what a [Proxy] stands before, and what it does with what passes.
type Config struct {
	// Postgres and AMQP are the servers' addresses, "host:port" or the path of a
	// unix socket. A protocol whose address is empty is not proxied; at least one
	// address is needed, here or below. The proxy speaks to the servers without
	// TLS.
	Postgres string
	AMQP     string

	// Services are the addresses of HTTP services by name, "host:port" or the
	// path of a unix socket. They are spoken to in HTTP/1.1, without TLS.
	Services map[string]string

	// Decide is asked about each message before it is forwarded. It is called
	// under the ordering lock, so one call at a time over all streams of all
	// lanes: it must not block, must not keep m, and must not call the Proxy or a
	// Lane, but for Steps, Frozen, Process and the addresses. nil passes all.
	// It is not asked about cancel requests, about what a fault swallows, nor
	// about messages that go into the entry of the one before (see the package's
	// documentation).
	Decide func(m *Message) Action

	// Observe is told of each message after it was forwarded and recorded, but
	// not of one that was swallowed. The rules of Decide hold. It may be nil.
	Observe func(m *Message)

	// Twin is given a copy of each publish that Duplicate struck, in a goroutine
	// of its own. Close waits for it. When it is nil, Duplicate passes.
	Twin func(Publishing)

	MaxDetail int          // bytes of Message.Detail; 0 means 512
	MaxTrace  int          // messages kept in the trace; 0 means 20000
	Logger    *slog.Logger // nil logs nothing
}

// Proxy stands between any number of processes and their servers. Each process
// gets a [Lane], with addresses of its own. All methods may be called at any
// time from any goroutine, but see Config.Decide.
type Proxy struct {
	cfg   Config
	log   *slog.Logger
	steps atomic.Int64
	twins sync.WaitGroup

	// mu is the ordering lock: it is held from a message's arrival until it is
	// forwarded or swallowed, so that what has passed at any moment is a
	// consistent prefix over all connections to all servers. Forwarding only
	// fills buffers; no read, write or wait happens under it.
	mu     sync.Mutex
	rec    recorder
	sql    sqlNames
	lanes  []*Lane
	closed bool
}

// New returns a Proxy. It does not dial: that happens for each connection that
// a client makes. The trace begins now.
func New(cfg Config) (*Proxy, error) {
	if cfg.Postgres == "" && cfg.AMQP == "" && len(cfg.Services) == 0 {
		return nil, errors.New("wire: no server to stand before: set Config.Postgres, Config.AMQP or Config.Services")
	}
	for _, addr := range []string{cfg.Postgres, cfg.AMQP} {
		if addr == "" {
			continue
		}
		if err := checkAddress(addr); err != nil {
			return nil, err
		}
	}
	for name, addr := range cfg.Services {
		if name == "" {
			return nil, errors.New("wire: a service without a name")
		}
		if err := checkAddress(addr); err != nil {
			return nil, err
		}
	}
	cfg.Services = maps.Clone(cfg.Services)
	if cfg.MaxDetail <= 0 {
		cfg.MaxDetail = defaultMaxDetail
	}
	if cfg.MaxTrace <= 0 {
		cfg.MaxTrace = defaultMaxTrace
	}
	p := &Proxy{cfg: cfg, log: cfg.Logger}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.rec = recorder{began: time.Now(), max: cfg.MaxTrace}
	p.sql = sqlNames{detail: cfg.MaxDetail}
	return p, nil
}

func checkAddress(addr string) error {
	if strings.HasPrefix(addr, "/") {
		return nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil || strings.Contains(addr, "/") {
		return fmt.Errorf("wire: server address %q is not host:port: take the host and port out of the URL", addr)
	}
	return nil
}

// Lane opens addresses for one more process. The first lane is process 1.
func (p *Proxy) Lane() (*Lane, error) { return openLane(p) }

// Trace returns a copy of what has passed so far.
func (p *Proxy) Trace() Trace {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec.trace()
}

// Since returns a copy of the messages that came after the one numbered seq; 0
// gives all. Of the newest ones, the size may still grow.
func (p *Proxy) Since(seq int) []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec.since(seq)
}

// Recorded returns how many messages the trace holds so far. It copies none.
func (p *Proxy) Recorded() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.rec.kept)
}

// Steps returns how many steps have arrived so far, those that a fault
// swallowed included. It takes no lock.
func (p *Proxy) Steps() int { return int(p.steps.Load()) }

// Close closes all lanes and waits for every goroutine of the proxy to end. It
// gives the servers two seconds to end their connections, then breaks those
// that are left and says so in its error. The trace can still be read.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	lanes := p.lanes
	p.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	errs := make([]error, len(lanes))
	var wg sync.WaitGroup
	for i, l := range lanes {
		wg.Go(func() { errs[i] = l.Close(ctx) })
	}
	wg.Wait()
	p.twins.Wait()
	return errors.Join(errs...)
}

// dial connects to the server of a protocol; of HTTP, to the service name.
func (p *Proxy) dial(ctx context.Context, proto Protocol, name string) (net.Conn, error) {
	addr := p.cfg.Postgres
	switch proto {
	case AMQP:
		addr = p.cfg.AMQP
	case HTTP:
		addr = p.cfg.Services[name]
	}
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	d := net.Dialer{Timeout: dialTime}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("wire: reach the %s server at %s: %w", proto, addr, err)
	}
	return conn, nil
}

// deliverTwin runs Config.Twin. It is called under the ordering lock.
func (p *Proxy) deliverTwin(pub Publishing) {
	p.twins.Go(func() { p.cfg.Twin(pub) })
}
