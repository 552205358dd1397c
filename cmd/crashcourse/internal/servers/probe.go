package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/state"
)

// probeTimeout bounds one attempt to talk to a server.
const probeTimeout = 5 * time.Second

// Oldest versions that serve.
const (
	minPostgres = 15
	minRabbit   = "3.10"
)

// Versions are what the two servers said of themselves.
type Versions struct{ Postgres, RabbitMQ string }

// Probe talks to both servers and returns their versions. Its error names the
// server, where it was looked for, and what to do.
func Probe(ctx context.Context, s state.Servers) (Versions, error) { return probe(ctx, s) }

func probe(ctx context.Context, s state.Servers) (Versions, error) {
	var v Versions
	type answer struct {
		version string
		err     error
	}
	pg := make(chan answer, 1)
	go func() {
		version, err := ProbePostgres(ctx, s.Postgres)
		pg <- answer{version, err}
	}()
	rabbit, err := ProbeRabbit(ctx, s.AMQP)
	if err == nil {
		err = ProbeManagement(ctx, s.Management)
	}
	p := <-pg
	v.Postgres, v.RabbitMQ = p.version, rabbit
	return v, errors.Join(p.err, err)
}

// ProbePostgres logs in to PostgreSQL and returns its version.
func ProbePostgres(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	where := "PostgreSQL at " + Where(address)
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		var pg *pgconn.PgError
		var cfg *pgconn.ParseConfigError
		switch {
		case errors.As(err, &cfg):
			return "", errors.New("servers: DATABASE_URL is not an address: write it as postgres://user:password@host:5432/database")
		case errors.As(err, &pg) && (pg.Code == "28P01" || pg.Code == "28000"):
			return "", fmt.Errorf("servers: %s refuses the user or the password: correct DATABASE_URL, or, when it is not set, run `crashcourse down` and `crashcourse up` (%w)", where, pg)
		case errors.As(err, &pg) && pg.Code == "3D000":
			return "", fmt.Errorf("servers: %s has no such database: create it, or name another in DATABASE_URL (%w)", where, pg)
		case errors.As(err, &pg):
			return "", fmt.Errorf("servers: %s does not let us in: %w", where, pg)
		}
		return "", unreachable(where, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	var number int
	var version, wal string
	var super, mayCreate bool
	err = conn.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('server_version'),
		       current_setting('wal_level'), rolsuper, rolcreatedb AND rolcreaterole
		FROM pg_roles WHERE rolname = current_user`).Scan(&number, &version, &wal, &super, &mayCreate)
	if err != nil {
		return "", fmt.Errorf("servers: %s does not answer a query: %w", where, err)
	}
	version = strings.Fields(version)[0]
	switch {
	case number < minPostgres*10000:
		return version, fmt.Errorf("servers: %s is version %s, too old: %d or newer is needed", where, version, minPostgres)
	case !super && !mayCreate:
		return version, fmt.Errorf("servers: the role that DATABASE_URL names may not create databases and roles in %s: name one that may (ALTER ROLE … CREATEDB CREATEROLE REPLICATION)", where)
	case wal != "logical":
		return version, fmt.Errorf("servers: %s runs with wal_level=%s, but change data capture needs logical: ALTER SYSTEM SET wal_level = logical, then restart it", where, wal)
	}
	return version, nil
}

// ProbeRabbit logs in to RabbitMQ and returns its version.
func ProbeRabbit(ctx context.Context, address string) (string, error) {
	where := "RabbitMQ at " + Where(address)
	conn, err := amqp.DialConfig(address, amqp.Config{
		Heartbeat: 10 * time.Second,
		Locale:    "en_US",
		Dial: func(network, addr string) (net.Conn, error) {
			d := net.Dialer{Timeout: probeTimeout}
			c, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return c, c.SetDeadline(time.Now().Add(probeTimeout))
		},
	})
	if err != nil {
		var e *amqp.Error
		switch {
		case errors.Is(err, amqp.ErrCredentials), errors.As(err, &e) && e.Code == amqp.AccessRefused:
			return "", fmt.Errorf("servers: %s refuses the user or the password: correct AMQP_URL, or, when it is not set, run `crashcourse down` and `crashcourse up` (%w)", where, err)
		case errors.Is(err, amqp.ErrVhost), errors.As(err, &e) && e.Code == amqp.NotAllowed:
			return "", fmt.Errorf("servers: %s has no such virtual host for this user: correct the path of AMQP_URL (%w)", where, err)
		}
		return "", unreachable(where, err)
	}
	defer conn.Close() //nolint:errcheck // nothing was sent
	version, _ := conn.Properties["version"].(string)
	if older(version, minRabbit) {
		return version, fmt.Errorf("servers: %s is version %s, too old: %s or newer is needed", where, version, minRabbit)
	}
	return version, nil
}

// ProbeManagement asks RabbitMQ's management API who we are.
func ProbeManagement(ctx context.Context, address string) error {
	where := "RabbitMQ's management API at " + Where(address)
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+"/api/whoami", nil)
	if err != nil {
		return errors.New("servers: AMQP_MANAGEMENT_URL is not an address: write it as http://user:password@host:15672")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w; enable it with `rabbitmq-plugins enable rabbitmq_management`, and say in AMQP_MANAGEMENT_URL where it is", unreachable(where, err))
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusUnauthorized {
		return fmt.Errorf("servers: %s refuses the user or the password: correct AMQP_MANAGEMENT_URL", where)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("servers: %s answers %s: correct AMQP_MANAGEMENT_URL", where, res.Status)
	}
	var who struct {
		Tags any `json:"tags"` // a list, or a text before 3.9
	}
	if err := json.NewDecoder(res.Body).Decode(&who); err != nil {
		return fmt.Errorf("servers: %s does not answer as the management API does: correct AMQP_MANAGEMENT_URL (%w)", where, err)
	}
	if !strings.Contains(fmt.Sprint(who.Tags), "administrator") {
		return fmt.Errorf("servers: %s: our user is no administrator: `rabbitmqctl set_user_tags USER administrator`", where)
	}
	return nil
}

// errUnreachable marks errors of servers that do not answer at all.
var errUnreachable = errors.New("no answer")

func unreachable(where string, err error) error {
	reason := err.Error()
	var op *net.OpError
	switch {
	case errors.As(err, &op):
		reason = op.Err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		reason = "timed out"
	}
	return fmt.Errorf("servers: %s: %w (%s): start it, or correct its address", where, errUnreachable, reason)
}

// Where returns the host and port of an address, without its credentials.
func Where(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "an unreadable address"
	}
	return u.Host
}

// older reports whether version a, such as 3.9.13, comes before b.
func older(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range bs {
		if i >= len(as) {
			return true
		}
		x, errX := strconv.Atoi(as[i])
		y, errY := strconv.Atoi(bs[i])
		if errX != nil || errY != nil {
			return false
		}
		if x != y {
			return x < y
		}
	}
	return false
}
