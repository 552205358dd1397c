package inbox_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/inbox"
	"crashcourse/pkg/outbox"
	"crashcourse/pkg/servertest"
)

// Several processes migrate at once, and the outbox is in the same database.
func TestMigrateInParallel(t *testing.T) {
	t.Parallel()
	s := servertest.New(t)
	var g errgroup.Group
	for range 3 {
		g.Go(func() error { return inbox.Migrate(t.Context(), s.DB) })
	}
	g.Go(func() error { return outbox.Migrate(t.Context(), s.DB) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var tables int
	err := s.DB.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE tablename IN ('inbox_messages', 'inbox_messages_3', 'inbox_parked', 'inbox_version', 'outbox_version')").Scan(&tables)
	if err != nil || tables != 5 {
		t.Errorf("%d tables, %v", tables, err)
	}

	if _, err := s.DB.Exec(t.Context(), "CREATE SCHEMA other"); err != nil {
		t.Fatal(err)
	}
	config := s.DB.Config()
	config.ConnConfig.RuntimeParams["search_path"] = "other, public"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := inbox.Migrate(t.Context(), pool); err == nil || !strings.Contains(err.Error(), "search_path") {
		t.Errorf("a second table would hide the first: %v", err)
	}
}
