package servertest_test

import (
	"errors"
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/servertest"
	"crashcourse/pkg/state"
)

func TestEachTestHasItsOwn(t *testing.T) {
	a, b := servertest.New(t), servertest.New(t)
	ctx := t.Context()
	for _, s := range []*servertest.Servers{a, b} {
		if _, err := s.DB.Exec(ctx, "CREATE TABLE t ()"); err != nil {
			t.Error(err)
		}
		ch, err := s.Conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if q, err := ch.QueueDeclare("q", true, false, false, false, nil); err != nil || q.Messages != 0 {
			t.Errorf("%+v, %v", q, err)
		}
		if err := ch.Publish("", "q", false, false, amqp.Publishing{}); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	s, err := servertest.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other := servertest.New(t)
	var left int
	err = other.AdminDB.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_database WHERE datname = $1) + (SELECT count(*) FROM pg_roles WHERE rolname = $1)`, s.Name).Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d left, %v", left, err)
	}
	vhosts, err := other.Admin.Vhosts(t.Context())
	if err != nil || slices.Contains(vhosts, s.Name) {
		t.Errorf("vhosts %v, %v", vhosts, err)
	}
}

func TestNoServers(t *testing.T) {
	t.Setenv(state.DirEnv, t.TempDir())
	t.Setenv(state.PostgresEnv, "")
	t.Setenv(state.AMQPEnv, "")
	if _, err := servertest.Open(t.Context()); !errors.Is(err, state.ErrNoServers) {
		t.Errorf("got %v", err)
	}
}
