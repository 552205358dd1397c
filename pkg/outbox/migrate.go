package outbox

import (
	"context"
	"embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/pkg/internal/migrate"
	"crashcourse/pkg/postgres"
)

// Migrations holds the schema as numbered SQL files in goose's format, for
// those who apply migrations by their own tool. [Migrate] applies the same.
//
//go:embed migrations/*.sql
var Migrations embed.FS

const migrationLock = 0x6f7574626f78 // "outbox"

// Migrate brings the tables that the package needs up to date, in the first
// schema of the search path. It may run in several processes at once: they wait
// for each other, for at most a minute. A table outbox that is there already,
// with the columns that [Migrations] names, is adopted; the role must own it.
//
// A relay can do without: if it finds a table outbox, whoever has made it, it
// makes the one other table that it needs.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	if err := migrate.Up(ctx, pool, "outbox", "outbox", Migrations, migrationLock); err != nil {
		return fmt.Errorf("outbox: %w", err)
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
	switch postgres.SQLState(err) {
	case "23505", "42P07", "42710": // IF NOT EXISTS does not see those who make it at the same moment
		return nil
	}
	if err != nil {
		return fmt.Errorf("outbox: make the table outbox_held (or let its owner run Migrate): %w", err)
	}
	return nil
}
