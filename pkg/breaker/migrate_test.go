package breaker_test

import (
	"testing"

	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/breaker"
	"crashcourse/pkg/inbox"
	"crashcourse/pkg/outbox"
	"crashcourse/pkg/servertest"
)

// Several processes migrate at once, and the other patterns are in the same database.
func TestMigrateInParallel(t *testing.T) {
	t.Parallel()
	s := servertest.New(t)
	var g errgroup.Group
	for range 3 {
		g.Go(func() error { return breaker.Migrate(t.Context(), s.DB) })
	}
	g.Go(func() error { return outbox.Migrate(t.Context(), s.DB) })
	g.Go(func() error { return inbox.Migrate(t.Context(), s.DB) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var tables int
	err := s.DB.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE tablename IN ('breaker_requests', 'breaker_version', 'inbox_version', 'outbox_version')").Scan(&tables)
	if err != nil || tables != 4 {
		t.Errorf("%d tables, %v", tables, err)
	}
}
