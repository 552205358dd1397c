package postgres

import (
	"fmt"
	"net/url"
)

// Change says what of an address to replace. What is empty stays as it is.
type Change struct {
	User     string            // together with Password: a user without a password drops the old one
	Password string            // used only with User
	Address  string            // host:port
	Database string            // the database's name, unescaped
	Params   map[string]string // query parameters, such as application_name
}

// URL returns the address base with the change made. Names and passwords are
// escaped as needed. It fails if base is not of the form postgres://….
func URL(base string, c Change) (string, error) {
	u, err := parse(base)
	if err != nil {
		return "", err
	}
	switch {
	case c.User != "" && c.Password != "":
		u.User = url.UserPassword(c.User, c.Password)
	case c.User != "":
		u.User = url.User(c.User)
	}
	if c.Address != "" {
		u.Host = c.Address
	}
	if c.Database != "" {
		u.Path, u.RawPath = "/"+c.Database, "/"+url.PathEscape(c.Database)
	}
	if len(c.Params) > 0 {
		q := u.Query()
		for k, v := range c.Params {
			q.Set(k, v)
		}
		u.RawQuery = q.Encode()
	}
	return u.String(), nil
}

// Redact returns the address without its password, fit for a log. It returns
// a placeholder if the address cannot be read.
func Redact(address string) string {
	u, err := parse(address)
	if err != nil {
		return "postgres://(unreadable)"
	}
	if q := u.Query(); q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

func parse(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		// The parser's error quotes the address, password and all: leave it out.
		return nil, fmt.Errorf("postgres: the address cannot be read, it should look like postgres://user:password@host:5432/database")
	}
	return u, nil
}
