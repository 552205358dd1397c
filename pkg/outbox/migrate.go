package outbox

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

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
// with the columns that [Migrations] names, is adopted.
//
// The role needs the right to create tables in the schema, and must own a table
// outbox that is there.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
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
		return fmt.Errorf("outbox: migrate the schema (the role must own the table outbox and may create tables): %w", err)
	}
	return nil
}
