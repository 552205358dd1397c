package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrExists is wrapped by the error of [CreateDatabase] when there is a
// database of that name already.
var ErrExists = errors.New("postgres: the database exists already")

// DatabaseOptions are the options of [CreateDatabase]. The zero value is a
// database that belongs to the caller's role and that only it may connect to.
type DatabaseOptions struct {
	// Owner is the role that the database belongs to. Empty: the caller's.
	Owner string
	// Replace drops a database of the same name first, whoever uses it.
	Replace bool
	// Public leaves every role of the server the right to connect.
	Public bool
}

// CreateDatabase makes a database. The admin role must have CREATEDB and, if it
// is no superuser, the right to grant the owner's role to itself.
func CreateDatabase(ctx context.Context, admin *pgxpool.Pool, name string, o DatabaseOptions) error {
	if o.Replace {
		if err := DropDatabase(ctx, admin, name); err != nil {
			return err
		}
	}
	create := "CREATE DATABASE " + quote(name)
	if o.Owner != "" {
		if err := joinRole(ctx, admin, o.Owner); err != nil {
			return err
		}
		create += " OWNER " + quote(o.Owner)
	}
	_, err := admin.Exec(ctx, create)
	if SQLState(err) == "42P04" {
		return fmt.Errorf("%w: %q; drop it, or say Replace: %w", ErrExists, name, err)
	}
	if err != nil {
		return fmt.Errorf("postgres: create database %q: %w", name, err)
	}
	if !o.Public {
		if _, err := admin.Exec(ctx, "REVOKE CONNECT, TEMPORARY ON DATABASE "+quote(name)+" FROM PUBLIC"); err != nil {
			return fmt.Errorf("postgres: close database %q to other roles: %w", name, err)
		}
	}
	return nil
}

// DropDatabase drops a database, its sessions and its replication slots. A
// database that does not exist is no error.
func DropDatabase(ctx context.Context, admin *pgxpool.Pool, name string) error {
	// FORCE ends ordinary sessions, but an active replication slot still stands
	// in the way: its walsender has to be gone first.
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		_, err := admin.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)+" WITH (FORCE)")
		if err == nil {
			return nil
		}
		if SQLState(err) != "55006" { // object_in_use
			return fmt.Errorf("postgres: drop database %q: %w", name, err)
		}
		if _, err := admin.Exec(ctx, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = $1 AND active", name); err != nil {
			return fmt.Errorf("postgres: end the replication of database %q before dropping it: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("postgres: drop database %q: it stayed in use: %w", name, errors.Join(ctx.Err(), err))
		case <-time.After(wait):
		}
	}
}

// RoleOptions are the options of [CreateRole]. The zero value is a role that
// may log in and nothing else.
type RoleOptions struct {
	// Replication lets the role stream changes and make replication slots. Only
	// a superuser (or, from PostgreSQL 16, a role with both rights) may grant it.
	Replication bool
	// ConnectionLimit is how many sessions it may have at once. 0: no limit.
	ConnectionLimit int
}

// CreateRole makes a role that can log in, without the right to make databases
// or roles, and returns its password, which is random. A role of that name that
// exists already gets the new password and these rights.
func CreateRole(ctx context.Context, admin *pgxpool.Pool, name string, o RoleOptions) (password string, err error) {
	password = rand.Text()
	with := []string{"LOGIN", "NOSUPERUSER", "NOCREATEDB", "NOCREATEROLE", "NOBYPASSRLS", "PASSWORD '" + password + "'"}
	if o.Replication {
		with = append(with, "REPLICATION")
	} else {
		with = append(with, "NOREPLICATION")
	}
	limit := "-1"
	if o.ConnectionLimit > 0 {
		limit = strconv.Itoa(o.ConnectionLimit)
	}
	with = append(with, "CONNECTION LIMIT "+limit)
	rights := quote(name) + " WITH " + strings.Join(with, " ")
	_, err = admin.Exec(ctx, "CREATE ROLE "+rights)
	if c := SQLState(err); c == "42710" || c == "23505" { // it exists, or is being made right now
		_, err = admin.Exec(ctx, "ALTER ROLE "+rights)
	}
	if err != nil {
		return "", fmt.Errorf("postgres: create role %q: %w", name, err)
	}
	return password, nil
}

// DropRole drops a role. Databases that belong to it must be dropped before. A
// role that does not exist is no error.
func DropRole(ctx context.Context, admin *pgxpool.Pool, name string) error {
	if _, err := admin.Exec(ctx, "DROP ROLE IF EXISTS "+quote(name)); err != nil {
		return fmt.Errorf("postgres: drop role %q: %w", name, err)
	}
	return nil
}

// joinRole lets a caller that is no superuser make things on behalf of role.
func joinRole(ctx context.Context, admin *pgxpool.Pool, role string) error {
	var super bool
	if err := admin.QueryRow(ctx, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user").Scan(&super); err != nil {
		return fmt.Errorf("postgres: look up the rights of the current role: %w", err)
	}
	if super {
		return nil
	}
	if _, err := admin.Exec(ctx, "GRANT "+quote(role)+" TO CURRENT_USER"); err != nil {
		return fmt.Errorf("postgres: become a member of role %q: %w", role, err)
	}
	return nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// SQLState returns the SQLSTATE of err, or "" if it is no error of the server.
func SQLState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
