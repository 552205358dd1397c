// Package migrate applies the SQL files of a package.
package migrate

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Up brings the tables of the package name up to date with files, numbered SQL
// files in goose's format. Several processes wait for each other, for at most a
// minute, by an advisory lock of the number lockID. table must lie in the first
// schema of the search path if it exists.
//
// Each package keeps its own account of what was applied, in the table
// name_version, so that its numbers do not collide with others'.
func Up(ctx context.Context, pool *pgxpool.Pool, name, table string, files fs.FS, lockID int64) error {
	var elsewhere bool
	err := pool.QueryRow(ctx, `SELECT coalesce((SELECT relnamespace::regnamespace::text <> quote_ident(current_schema()) FROM pg_class WHERE oid = to_regclass(quote_ident($1))), false)`, table).Scan(&elsewhere)
	if err != nil {
		return fmt.Errorf("look for the table %s: %w", table, err)
	}
	if elsewhere {
		return fmt.Errorf("there is a table %s in another schema than the first of the search path; a second one would hide it: change the search_path", table)
	}
	files, err = fs.Sub(files, "migrations")
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockID), lock.WithLockTimeout(1, 60))
	if err != nil {
		return fmt.Errorf("prepare the lock of the migrations: %w", err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(name+"_version"),
		goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("prepare the migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate the schema (the role needs CREATE on the schema, and must own the table %s): %w", table, err)
	}
	return nil
}
