package inbox

import (
	"context"
	"embed"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/pkg/internal/migrate"
)

// Migrations holds the schema as numbered SQL files in goose's format, for
// those who apply migrations by their own tool. [Migrate] applies the same.
//
//go:embed migrations/*.sql
var Migrations embed.FS

const migrationLock = 0x696e626f78 // "inbox"

// Migrate brings the tables that the package needs up to date, in the first
// schema of the search path. It may run in several processes at once: they wait
// for each other, for at most a minute. [Consumer.Run] calls it if it finds no
// table inbox_messages.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	if err := migrate.Up(ctx, pool, "inbox", "inbox_messages", Migrations, migrationLock); err != nil {
		return fmt.Errorf("inbox: %w", err)
	}
	return nil
}
