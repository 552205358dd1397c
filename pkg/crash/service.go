package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Serving is what a [Scenario] implements too if its spec has Services: it plays
// the services that the program calls. What they hold outlives the program, so it
// belongs into the scenario's State, Check and Tables.
type Serving interface {
	// Services returns the handlers of the spec's services, by name. It is called
	// once, after Reset. Each is served on an address of its own for as long as the
	// run lasts. Handlers are called from many goroutines, also while methods of the
	// scenario run. A request's context ends when the program has gone, or has been
	// killed: a handler that takes its time has to heed it, or each crash waits for
	// it.
	Services() map[string]http.Handler
}

// ServiceEnv is the environment variable in which a process under test finds the
// base URL of a service: SERVICE_PAYMENTS_URL for payments.
func ServiceEnv(name string) string { return "SERVICE_" + strings.ToUpper(name) + "_URL" }

var validService = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// services are those of one run.
type services struct {
	addrs   map[string]string // by name
	servers []*http.Server
	cancel  context.CancelFunc
}

// serveAll serves what the spec names with the handlers of the scenario.
func serveAll(names []string, scenario Scenario) (_ *services, err error) {
	s := &services{addrs: map[string]string{}}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	var handlers map[string]http.Handler
	if len(names) > 0 {
		serving, ok := scenario.(Serving)
		if !ok {
			return nil, errors.New("crash: the spec has Services, and its scenario no method of that name: see Serving")
		}
		handlers = serving.Services()
	}
	for _, name := range names {
		switch {
		case !validService.MatchString(name):
			return nil, fmt.Errorf("crash: %q is no name of a service: use small letters, digits and _", name)
		case handlers[name] == nil:
			return nil, fmt.Errorf("crash: the scenario does not serve %s", name)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("crash: serve %s: %w", name, err)
		}
		server := &http.Server{
			Handler: handlers[name], ReadHeaderTimeout: runTimeout, ErrorLog: log.New(io.Discard, "", 0),
			BaseContext: func(net.Listener) context.Context { return ctx },
		}
		s.addrs[name] = l.Addr().String()
		s.servers = append(s.servers, server)
		go func() { _ = server.Serve(l) }() // until close
	}
	return s, nil
}

// close ends the services, and the contexts of the requests they are at work on.
func (s *services) close() {
	s.cancel()
	for _, server := range s.servers {
		_ = server.Close()
	}
}

// calling says whether a service is at work on a request of a process. What it
// does for one whose lane is closed is over.
func (n *run) calling() bool {
	if len(n.spec.Services) == 0 {
		return false
	}
	for _, p := range n.procs {
		if !p.buried && p.lane.Unanswered() > 0 {
			return true
		}
	}
	return false
}

// calls is calling, for as long after the last strike as a service may reasonably
// take.
func (n *run) calls(now time.Time) bool {
	n.mu.Lock()
	since := now.Sub(n.struckAt)
	n.mu.Unlock()
	return since < stuckAfter && n.calling()
}
