package broker

import (
	"errors"
	"net"
	"net/url"
)

var errUnreadable = errors.New("broker: the address cannot be read, it should look like amqp://user:password@host:5672/vhost")

// Change says what of an address to replace. What is empty stays as it is.
type Change struct {
	User     string // together with Password
	Password string // used only with User
	Address  string // host:port
	Vhost    string // the virtual host's name, unescaped; "/" is the default one
}

// URL returns the address base with the change made. Names and passwords are
// escaped as needed. It fails if base is not of the form amqp://… or amqps://….
func URL(base string, c Change) (string, error) {
	u, err := parse(base)
	if err != nil {
		return "", err
	}
	if c.User != "" {
		u.User = url.UserPassword(c.User, c.Password)
	}
	if c.Address != "" {
		u.Host = c.Address
	}
	if c.Vhost != "" {
		u.Path, u.RawPath = "/"+c.Vhost, "/"+url.PathEscape(c.Vhost)
	}
	return u.String(), nil
}

// Redact returns the address without its password, fit for a log. It returns
// a placeholder if the address cannot be read.
func Redact(address string) string {
	u, err := parse(address)
	if err != nil {
		return "amqp://(unreadable)"
	}
	return u.Redacted()
}

// ManagementURL guesses where the management API of the server at amqpURL is:
// the same host, port 15672, the same user.
func ManagementURL(amqpURL string) (string, error) {
	u, err := parse(amqpURL)
	if err != nil {
		return "", err
	}
	host := u.Hostname()
	if host == "" {
		host = "localhost"
	}
	m := url.URL{Scheme: "http", User: u.User, Host: net.JoinHostPort(host, "15672")}
	return m.String(), nil
}

func parse(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "amqp" && u.Scheme != "amqps") {
		return nil, errUnreadable
	}
	return u, nil
}
