package lab

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"crashcourse/pkg/crash"
)

// Service serves an HTTP service in the cell's own process, for as long as the
// cell lives. Functions that [Lab.Run], [Lab.Together] and [Lab.Step] run find it
// at [ServiceURL], and everything that they say to it passes the wires. What the
// handler holds outlives them, so the cell can look at it after the run:
//
//	charges := 0
//	l.Service("payments", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//		charges++
//		w.WriteHeader(http.StatusCreated)
//	}))
//	l.Run(pay, lab.Cut("201 POST /charges"))
//	fmt.Println(charges)
//
// A name is made of small letters, digits and _. Call it before the runs that need
// it, and once for each name. The handler is called from many goroutines, but not
// after Run has returned, if it heeds the request's context.
func (l *Lab) Service(name string, handler http.Handler) {
	if l.role != nil {
		return // it runs in the cell's process
	}
	if err := l.serve(name, handler); err != nil {
		l.fail(err)
	}
}

func (l *Lab) serve(name string, handler http.Handler) error {
	if !validName.MatchString(name) || handler == nil {
		return fmt.Errorf("lab: a service needs a name of small letters, digits and _, and a handler: %q", name)
	}
	if l.services[name] != "" {
		return fmt.Errorf("lab: there is a service %s already", name)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("lab: serve %s: %w", name, err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: longest, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(ln) }() // until the cell ends
	if l.services == nil {
		l.services = map[string]string{}
	}
	l.services[name] = ln.Addr().String()
	// For what runs in this process, past the wires.
	return os.Setenv(crash.ServiceEnv(name), "http://"+l.services[name])
}

// ServiceURL is the base URL of a service, such as http://127.0.0.1:23456, in the
// function that a run has started, or in the cell itself; "" when there is none of
// that name.
func ServiceURL(name string) string { return os.Getenv(crash.ServiceEnv(name)) }
