package outbox

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Migrations holds the schema as numbered SQL files in goose's format, for
// those who apply migrations by their own tool. [Migrate] applies the same.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// The package keeps its own account of what was applied, so that its numbers
// do not collide with those of the service's own migrations.
const (
	versionTable  = "outbox_version"
	migrationLock = 0x6f7574626f78 // "outbox"
)

// Migrate brings the tables that the package needs up to date, in the first
// schema of the search path. It may run in several processes at once: they wait
// for each other, for at most a minute. A table outbox that is there already,
// with the columns that [Migrations] names, is adopted; the role must own it.
//
// A relay can do without: if it finds a table outbox, whoever has made it, it
// makes the one other table that it needs.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	var elsewhere bool
	err := pool.QueryRow(ctx, `SELECT coalesce((SELECT relnamespace::regnamespace::text <> quote_ident(current_schema()) FROM pg_class WHERE oid = to_regclass('outbox')), false)`).Scan(&elsewhere)
	if err != nil {
		return fmt.Errorf("outbox: look for the table outbox: %w", err)
	}
	if elsewhere {
		return errors.New("outbox: there is a table outbox in another schema than the first of the search path; a second one would hide it: change the search_path")
	}
	files, err := fs.Sub(Migrations, "migrations")
	if err != nil {
		return fmt.Errorf("outbox: read the migrations: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock), lock.WithLockTimeout(1, 60))
	if err != nil {
		return fmt.Errorf("outbox: prepare the lock of the migrations: %w", err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(versionTable),
		goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("outbox: prepare the migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("outbox: migrate the schema (the role needs CREATE on the schema, and must own the table outbox): %w", err)
	}
	return nil
}

// makeHeld makes the table outbox_held beside a table outbox that was not made
// by [Migrate].
func makeHeld(ctx context.Context, pool *pgxpool.Pool) error {
	file, err := Migrations.ReadFile("migrations/00002_outbox_held.sql")
	if err != nil {
		return fmt.Errorf("outbox: read the migrations: %w", err)
	}
	up, _, _ := strings.Cut(string(file), "-- +goose Down")
	_, err = pool.Exec(ctx, up)
	switch sqlState(err) {
	case "23505", "42P07", "42710": // IF NOT EXISTS does not see those who make it at the same moment
		return nil
	}
	if err != nil {
		return fmt.Errorf("outbox: make the table outbox_held (or let its owner run Migrate): %w", err)
	}
	return nil
}
