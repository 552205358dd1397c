package breaker

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

const migrationLock = 0x627265616b6572 // "breaker"

// Migrate brings the table that a [Queue] needs up to date, in the first schema of
// the search path. It may run in several processes at once: they wait for each
// other, for at most a minute. [Queue.Run] calls it if it finds no table
// breaker_requests.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	if err := migrate.Up(ctx, pool, "breaker", "breaker_requests", Migrations, migrationLock); err != nil {
		return fmt.Errorf("breaker: %w", err)
	}
	return nil
}
