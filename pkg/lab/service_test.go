package lab

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// pay asks for a charge, and once more when it does not know what became of it.
func pay(ctx context.Context, db *pgxpool.Pool, _ *amqp.Connection) error {
	if _, err := db.Exec(ctx, `INSERT INTO orders VALUES ('A', 'Ada')`); err != nil {
		return err
	}
	client := &http.Client{Timeout: 10 * time.Second}
	var err error
	for range 2 {
		var answer *http.Response
		if answer, err = client.Post(ServiceURL("payments")+"/charges", "application/json", strings.NewReader(`{"cents":4200}`)); err != nil {
			continue
		}
		_ = answer.Body.Close()
		if answer.StatusCode == http.StatusCreated {
			return nil
		}
		err = fmt.Errorf("charge: %s", answer.Status)
	}
	return err
}

func TestServiceOfACell(t *testing.T) {
	b := open(t, "test_service")
	var charges atomic.Int64
	b.Service("payments", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		charges.Add(1)
		w.WriteHeader(http.StatusCreated)
	}))
	for _, c := range []struct {
		faults  []Fault
		charges int64
		end     string
	}{
		{nil, 1, "returned nil"},
		{[]Fault{Kill("POST /charges")}, 0, "was killed"},
		{[]Fault{Kill("201 POST /charges")}, 1, "was killed"},
		{[]Fault{Cut("POST /charges")}, 1, "returned nil"},
		{[]Fault{Cut("201 POST /charges")}, 2, "returned nil"},
		{[]Fault{Fail("POST /charges")}, 1, "returned nil"},
		{[]Fault{Fail("201 POST /charges")}, 2, "returned nil"},
		{[]Fault{Fail("INSERT orders")}, 0, "returned an error"},
		{[]Fault{Blackhole("201 POST /charges")}, 1, "was cut off"},
	} {
		if b.role == nil {
			charges.Store(0)
			b.out.Reset()
			b.SQL(`TRUNCATE orders`)
		}
		tr := b.Run(pay, c.faults...)
		if b.role != nil {
			continue
		}
		if got := charges.Load(); got != c.charges {
			t.Errorf("%v: %d charges, want %d; the trace holds %s", c.faults, got, c.charges, names(tr))
		}
		if !strings.Contains(b.out.String(), c.end) || !strings.Contains(b.out.String(), "payments") && c.charges > 0 {
			t.Errorf("%v: it says:\n%s", c.faults, b.out.String())
		}
	}
}

// slowly asks a service that takes longer than a run waits for who says nothing.
func slowly(ctx context.Context, _ *pgxpool.Pool, _ *amqp.Connection) error {
	answer, err := http.Get(ServiceURL("stock"))
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

func TestRunWaitsForASlowService(t *testing.T) {
	b := open(t, "test_slow")
	b.Service("stock", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(muteAfter + time.Second) }))
	tr := b.Run(slowly)
	if b.role != nil {
		return
	}
	if got := names(tr); got != "GET /, 200 GET /" || !strings.Contains(b.out.String(), "returned nil") {
		t.Errorf("%s\n%s", got, b.out.String())
	}
}
