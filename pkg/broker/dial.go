package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The oldest version of RabbitMQ that [Dial] accepts is MinMajor.MinMinor.
const (
	MinMajor = 3
	MinMinor = 10
)

// ErrTooOld is wrapped by the error of [Dial] when the server is older than
// that.
var ErrTooOld = errors.New("broker: the server is too old")

// DialTimeout bounds connecting and the handshake together, unless ctx ends
// before.
const DialTimeout = 5 * time.Second

// Dial connects to the server at url. Each configure function may change the
// settings before that: Heartbeat is 10 seconds, Recovery is off. ctx bounds
// the dialling only, not the connection's life; the caller closes the
// connection. The error never holds the password.
func Dial(ctx context.Context, url string, configure ...func(*amqp.Config)) (*amqp.Connection, error) {
	u, err := amqp.ParseURI(url)
	if err != nil {
		return nil, errUnreadable // the parser's error quotes the address, password and all
	}
	at := net.JoinHostPort(u.Host, strconv.Itoa(u.Port))

	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	unwatch := func() bool { return true }
	config := amqp.Config{
		Heartbeat: 10 * time.Second,
		Locale:    "en_US",
		Dial: func(network, addr string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			// Closing the socket is what ends a handshake that hangs.
			unwatch = context.AfterFunc(ctx, func() { _ = conn.Close() })
			return conn, nil
		},
	}
	for _, c := range configure {
		c(&config)
	}
	conn, err := amqp.DialConfig(url, config)
	if cut := !unwatch(); cut && err == nil {
		err = net.ErrClosed
	}
	if err != nil {
		// A refusal counts for more than the time it took: RabbitMQ keeps whoever
		// has a wrong password waiting for three seconds.
		if ctx.Err() != nil && !hasCode(err, amqp.AccessRefused) && !hasCode(err, amqp.NotAllowed) {
			err = fmt.Errorf("%w (%w)", ctx.Err(), err)
		}
		return nil, explain(err, at, u)
	}
	if version, _ := conn.Properties["version"].(string); tooOld(version) {
		_ = conn.Close()
		return nil, fmt.Errorf("%w: %s runs version %s, version %d.%d or later is needed", ErrTooOld, at, version, MinMajor, MinMinor)
	}
	return conn, nil
}

// explain says what happened and what to do about it.
func explain(err error, at string, u amqp.URI) error {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("broker: the host name %q is not known; correct it in the address: %w", u.Host, err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("broker: connecting to %s was cancelled: %w", at, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("broker: %s did not answer in time; is it the right address, and is the server up?: %w", at, err)
	case errors.Is(err, amqp.ErrCredentials), hasCode(err, amqp.AccessRefused):
		return fmt.Errorf("broker: %s refused user %q; correct user and password in the address (guest may only come from the same machine): %w", at, u.Username, err)
	case errors.Is(err, amqp.ErrVhost), hasCode(err, amqp.NotAllowed):
		return fmt.Errorf("broker: user %q may not use virtual host %q on %s; create it, or grant the user permissions: %w", u.Username, u.Vhost, at, err)
	case errors.As(err, &op):
		return fmt.Errorf("broker: nothing answers at %s; start the server, or correct the address: %w", at, err)
	}
	return fmt.Errorf("broker: connect to %s: %w", at, err)
}

func hasCode(err error, code int) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == code
}

// tooOld judges a version such as "3.10.8". One that cannot be read is let
// pass: another broker may speak the protocol as well.
func tooOld(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(major)
	if err != nil {
		return false
	}
	b, _ := strconv.Atoi(minor)
	return a < MinMajor || a == MinMajor && b < MinMinor
}
