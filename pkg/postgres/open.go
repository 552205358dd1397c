package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// MinVersion is the oldest major version of PostgreSQL that [Open] accepts.
const MinVersion = 15

// ErrTooOld is wrapped by the error of [Open] when the server is older than
// [MinVersion].
var ErrTooOld = errors.New("postgres: the server is too old")

// DefaultConnectTimeout bounds each attempt to connect when the address does
// not say connect_timeout.
const DefaultConnectTimeout = 5 * time.Second

// Open returns a pool of connections to the server at url, after one of them
// has been made. Each configure function may change the pool's settings before
// that. The caller closes the pool.
//
// Without settings the pool is pgx's own: at most 4 connections, or one per
// processor if that is more. The error never holds the password.
func Open(ctx context.Context, url string, configure ...func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: the address cannot be read, it should look like postgres://user:password@host:5432/database: %w", err)
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = DefaultConnectTimeout
	}
	for _, c := range configure {
		c(config)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("postgres: make a pool: %w", err)
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		pool.Close()
		return nil, Explain(err, config.ConnConfig.Host, config.ConnConfig.Port, config.ConnConfig.User, config.ConnConfig.Database)
	}
	version := conn.Conn().PgConn().ParameterStatus("server_version")
	conn.Release()
	if major := majorVersion(version); major < MinVersion {
		pool.Close()
		return nil, fmt.Errorf("%w: %s:%d runs version %s, version %d or later is needed", ErrTooOld, config.ConnConfig.Host, config.ConnConfig.Port, version, MinVersion)
	}
	return pool, nil
}

// Explain turns the error of an attempt to connect into one that says what
// happened and what to do. It wraps err.
func Explain(err error, host string, port uint16, user, database string) error {
	at := fmt.Sprintf("%s:%d", host, port)
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "28P01":
			return fmt.Errorf("postgres: %s refused the password of user %q; correct it in the address: %w", at, user, err)
		case "28000":
			return fmt.Errorf("postgres: %s does not let user %q in; create the role, or allow it in pg_hba.conf: %w", at, user, err)
		case "3D000":
			return fmt.Errorf("postgres: %s has no database %q; create it, or correct the address: %w", at, database, err)
		case "42501":
			return fmt.Errorf("postgres: user %q may not connect to database %q on %s; grant it CONNECT: %w", user, database, at, err)
		case "53300":
			return fmt.Errorf("postgres: %s has no connection left; close some, or raise max_connections: %w", at, err)
		case "57P03":
			return fmt.Errorf("postgres: %s is starting up or shutting down; try again in a moment: %w", at, err)
		}
		return fmt.Errorf("postgres: %s refused the connection: %w", at, err)
	}
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("postgres: the host name %q is not known; correct it in the address: %w", host, err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("postgres: connecting to %s was cancelled: %w", at, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("postgres: %s did not answer in time; is it the right address, and is the server up?: %w", at, err)
	case errors.As(err, &op):
		return fmt.Errorf("postgres: nothing answers at %s; start the server, or correct the address: %w", at, err)
	}
	return fmt.Errorf("postgres: connect to %s: %w", at, err)
}

// majorVersion reads 15 from "15.14 (Debian 15.14-0+deb12u1)" and 18 from
// "18beta1"; it returns 0 if there is no number.
func majorVersion(s string) int {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(s)
	}
	n, _ := strconv.Atoi(s[:end])
	return n
}
