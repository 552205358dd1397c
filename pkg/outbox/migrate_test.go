package outbox_test

import (
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/outbox"
	"crashcourse/pkg/servertest"
)

func TestMigrateInParallel(t *testing.T) {
	t.Parallel()
	s := servertest.New(t)
	// The service has migrations of its own, by the same tool.
	if _, err := s.DB.Exec(t.Context(), "CREATE TABLE goose_db_version (id int); INSERT INTO goose_db_version VALUES (7)"); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	for range 4 {
		g.Go(func() error { return outbox.Migrate(t.Context(), s.DB) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var tables, theirs int
	err := s.DB.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_tables WHERE tablename IN ('outbox', 'outbox_held', 'outbox_version')),
		(SELECT id FROM goose_db_version)`).Scan(&tables, &theirs)
	if err != nil || tables != 3 || theirs != 7 {
		t.Errorf("%d tables, their version is %d, %v", tables, theirs, err)
	}
}

func TestMigrateAdopts(t *testing.T) {
	t.Parallel()
	s := servertest.New(t)
	ctx := t.Context()
	const table = `CREATE TABLE outbox (
		seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, message_id uuid NOT NULL UNIQUE, aggregate_id text NOT NULL, type text NOT NULL,
		payload jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), published_at timestamptz);
		INSERT INTO outbox (message_id, aggregate_id, type, payload) VALUES (gen_random_uuid(), 'a', 't', '{}')`
	if _, err := s.DB.Exec(ctx, table); err != nil {
		t.Fatal(err)
	}
	if err := outbox.Migrate(ctx, s.DB); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := s.DB.QueryRow(ctx, "SELECT count(*) FROM outbox").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}

	if _, err := s.DB.Exec(ctx, "CREATE SCHEMA other"); err != nil {
		t.Fatal(err)
	}
	config := s.DB.Config()
	config.ConnConfig.RuntimeParams["search_path"] = "other, public"
	pool := newPool(t, config)
	if err := outbox.Migrate(ctx, pool); err == nil || !strings.Contains(err.Error(), "search_path") {
		t.Errorf("a second table would hide the first: %v", err)
	}
}
