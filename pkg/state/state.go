// Package state finds the repository, its state folder and the servers that
// were started for it.
//
// Everything the course makes while it runs lives in one folder, .crashcourse
// in the repository's root: installed tools, server data, judges, verdicts,
// progress. It is ignored by git and may be deleted whenever nothing runs.
package state

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Environment variables that override what is found otherwise.
const (
	RootEnv       = "CRASHCOURSE_ROOT"  // the repository's root
	DirEnv        = "CRASHCOURSE_STATE" // the state folder
	PostgresEnv   = "DATABASE_URL"
	AMQPEnv       = "AMQP_URL"
	ManagementEnv = "AMQP_MANAGEMENT_URL"
)

// ErrNoServers is returned by [LoadServers] when no addresses are known.
var ErrNoServers = errors.New("no servers: start them with `crashcourse up`, or set DATABASE_URL, AMQP_URL and AMQP_MANAGEMENT_URL")

// Root returns the repository's root: $CRASHCOURSE_ROOT, or the nearest folder
// at or above the working directory whose go.mod declares module crashcourse, or
// the one above the running program: `crashcourse step` is used anywhere.
func Root() (string, error) {
	if r := os.Getenv(RootEnv); r != "" {
		return filepath.Abs(r)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("state: find the repository: %w", err)
	}
	if root, ok := rootAbove(dir); ok {
		return root, nil
	}
	if program, err := os.Executable(); err == nil {
		if root, ok := rootAbove(filepath.Dir(program)); ok {
			return root, nil
		}
	}
	return "", fmt.Errorf("state: no crashcourse repository at or above the working directory; set %s to its root", RootEnv)
}

// rootAbove looks for the repository at or above dir.
func rootAbove(dir string) (root string, ok bool) {
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module crashcourse\n") {
			return dir, true
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", false
		}
		dir = up
	}
}

// Dir returns the state folder, made if need be: $CRASHCOURSE_STATE, or
// .crashcourse in [Root].
func Dir() (string, error) {
	dir := os.Getenv(DirEnv)
	if dir == "" {
		root, err := Root()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, ".crashcourse")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("state: %w", err)
	}
	return filepath.Abs(dir)
}

// Servers says where the two servers are and how they came to be there. The
// addresses carry credentials: never print them whole.
type Servers struct {
	Postgres   string `json:"database_url"`   // postgres://… of a role that may create databases and roles
	AMQP       string `json:"amqp_url"`       // amqp://… of an administrator
	Management string `json:"management_url"` // http://… of RabbitMQ's management API, with the same user
	Kind       string `json:"kind"`           // environment, docker or private
}

// LoadServers returns the servers of the environment, or else those that
// `crashcourse up` recorded, or else [ErrNoServers]. It does not dial.
func LoadServers() (Servers, error) {
	if pg, mq := os.Getenv(PostgresEnv), os.Getenv(AMQPEnv); pg != "" || mq != "" {
		if pg == "" || mq == "" {
			return Servers{}, fmt.Errorf("state: %s and %s go together: set both or neither", PostgresEnv, AMQPEnv)
		}
		management := os.Getenv(ManagementEnv)
		if management == "" {
			management = defaultManagement(mq)
		}
		return Servers{Postgres: pg, AMQP: mq, Management: management, Kind: "environment"}, nil
	}
	dir, err := Dir()
	if err != nil {
		return Servers{}, err
	}
	return LoadServersFile(dir)
}

// defaultManagement guesses the management API's address from the broker's:
// the same host and user, and the port it has when nobody chose another.
func defaultManagement(amqp string) string {
	u, err := url.Parse(amqp)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	return (&url.URL{Scheme: "http", User: u.User, Host: net.JoinHostPort(u.Hostname(), "15672")}).String()
}
