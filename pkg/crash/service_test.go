package crash_test

import (
	"context"
	"encoding/json"

	"fmt"
	"math/rand/v2"
	"net/http"
	"os"

	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/state"
)

// charges charges the rows of todo and deletes each when that is done. With keys
// it says which charge it means, so that it can ask again.
func charges(withKeys bool) func(context.Context) error {
	return func(ctx context.Context) error {
		return move(ctx, func(conn *pgx.Conn, id int) error {
			key := ""
			if withKeys {
				key = fmt.Sprint("row-", id)
			}
			return charge(ctx, conn, id, key)
		})
	}
}

func charge(ctx context.Context, conn *pgx.Conn, id int, key string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("SERVICE_PAYMENTS_URL")+"/charges", strings.NewReader(fmt.Sprintf(`{"row":%d}`, id)))
	if err != nil {
		return err
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		return fmt.Errorf("charge row %d: %s", id, answer.Status)
	}
	_, err = conn.Exec(ctx, "DELETE FROM todo WHERE id = $1", id)
	return err
}

// charging is the scenario: rows to charge, and the service that does it.
type charging struct {
	moving
	rows    int
	takes   time.Duration // the service takes so long
	mu      sync.Mutex
	charges map[int]int
	keys    map[string]bool
}

func chargingSpec(rows int, takes time.Duration) *crash.Spec {
	spec := movingSpec()
	spec.ID, spec.Services = "test/charging", []string{"payments"}
	spec.Invariants = []crash.Invariant{{Name: "charged-once", Says: "Each row is charged once."}}
	spec.Scenario = func(a *crash.Arena, rng *rand.Rand, _ string) (crash.Scenario, error) {
		return &charging{moving: moving{arena: a, first: rng.IntN(1 << 20)}, rows: rows, takes: takes, charges: map[int]int{}, keys: map[string]bool{}}, nil
	}
	return spec
}

func (c *charging) Reset(ctx context.Context) error {
	_, err := c.arena.DB.Exec(ctx, fmt.Sprintf("DELETE FROM public.todo; INSERT INTO public.todo SELECT generate_series(%d, %d)", c.first, c.first+c.rows-1))
	return err
}

func (c *charging) Services() map[string]http.Handler {
	return map[string]http.Handler{"payments": c}
}

func (c *charging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct{ Row int }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.URL.Path != "/charges" {
		http.Error(w, "no charge", http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(c.takes):
	case <-r.Context().Done():
		return
	}
	c.mu.Lock()
	key := r.Header.Get("Idempotency-Key")
	if key == "" || !c.keys[key] {
		c.charges[body.Row-c.first]++
	}
	c.keys[key] = key != ""
	c.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
}

func (c *charging) State(ctx context.Context) (string, error) {
	var left string // as it is now, not when Done last looked
	err := c.arena.DB.QueryRow(ctx, "SELECT coalesce(string_agg((id - $1)::text, ' ' ORDER BY id), '') FROM public.todo", c.first).Scan(&left)
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(left, c.charges), err
}

func (c *charging) Check(context.Context, int) ([]crash.Violation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, n := range c.charges {
		if n != 1 {
			return []crash.Violation{{Invariant: "charged-once", Detail: fmt.Sprintf("row %d was charged %d times", id+1, n)}}, nil
		}
	}
	return nil, nil
}

func judgeCharging(t *testing.T, spec *crash.Spec, name string, o crash.Options) crash.Verdict {
	t.Helper()
	servers, err := state.LoadServers()
	if err != nil {
		t.Fatal(err)
	}
	v, err := crash.Judge(t.Context(), servers, spec, program(t, name), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestChargeWithoutAKeyIsMadeTwice(t *testing.T) {
	v := judgeCharging(t, chargingSpec(3, 0), "charges", crash.Options{Seed: 1, Whole: true, Budget: 5 * time.Minute})
	if v.Verdict != crash.Fail || v.Failure == nil || v.Failure.Invariant != "charged-once" || v.Score == 0 {
		t.Fatalf("%s %s %+v", v.Verdict, v.Error, v.Failure)
	}
	// Every fault that strikes between the charge and what follows it finds it,
	// and none that strikes before the charge.
	seen := map[string]bool{}
	for _, p := range v.Points {
		seen[p.Fault+" "+p.Message] = true
		after := p.Message == "201 POST /charges" || strings.HasSuffix(p.Message, "DELETE todo")
		if twice := p.Violation == "charged-once"; twice != after && p.Message != "DELETE todo done" {
			t.Errorf("%s at %s, before %s: %s %s", p.Fault, p.At, p.Message, p.Outcome, p.Detail)
		}
	}
	for _, want := range []string{"kill POST /charges", "cut POST /charges", "blackhole POST /charges", "fail POST /charges",
		"cut 201 POST /charges", "blackhole 201 POST /charges", "fail 201 POST /charges"} {
		if !seen[want] {
			t.Errorf("no %s among the points", want)
		}
	}
	for _, p := range v.Points {
		if strings.Contains(p.At, "http") && p.Fault == "shutdown" {
			t.Errorf("shutdown at %s, which HTTP does not know", p.At)
		}
	}
	schedule, err := crash.ParseSchedule("kill@p1.http1<1")
	if err != nil {
		t.Fatal(err)
	}
	again := judgeCharging(t, chargingSpec(3, 0), "charges", crash.Options{Seed: 1, Schedule: schedule})
	if again.Verdict != crash.Fail || again.Failure.Message != "201 POST /charges" {
		t.Errorf("the kill before the response: %s %s %+v", again.Verdict, again.Error, again.Failure)
	}
}

func TestChargeWithAKeyIsMadeOnce(t *testing.T) {
	for mode, rows := range map[crash.Mode]int{crash.Quick: 2, crash.Full: 1} {
		v := judgeCharging(t, chargingSpec(rows, 0), "charges with a key", crash.Options{Mode: mode, Seed: 1, Budget: 5 * time.Minute})
		if v.Verdict != crash.Pass {
			t.Fatalf("%s: %s %s %+v", mode, v.Verdict, v.Error, v.Failure)
		}
		for _, p := range v.Points {
			if p.Outcome == crash.Unreached {
				t.Errorf("%s: %s at %s, before %s, was not reached", mode, p.Fault, p.At, p.Message)
			}
		}
	}
}

// TestSlowServiceIsNoHang has a service that takes longer than a process may
// stand still.
func TestSlowServiceIsNoHang(t *testing.T) {
	schedule, err := crash.ParseSchedule("fail@p1.http1>1")
	if err != nil {
		t.Fatal(err)
	}
	v := judgeCharging(t, chargingSpec(1, 4*time.Second), "charges with a key", crash.Options{Seed: 1, Schedule: schedule})
	if v.Verdict != crash.Pass || v.Runs != 1 {
		t.Errorf("%s after %d runs, %s %+v", v.Verdict, v.Runs, v.Error, v.Failure)
	}
}

func TestServiceThatNeverAnswersEndsTheRun(t *testing.T) {
	schedule, err := crash.ParseSchedule("fail@p1.http1>1")
	if err != nil {
		t.Fatal(err)
	}
	v := judgeCharging(t, chargingSpec(1, time.Hour), "charges", crash.Options{Seed: 1, Schedule: schedule})
	if v.Failure == nil || v.Failure.Invariant != crash.AllWorkDone || !strings.Contains(v.Failure.Detail, "waited for a service") {
		t.Errorf("%s %s %+v", v.Verdict, v.Error, v.Failure)
	}
}

func TestSpecsWithBadServices(t *testing.T) {
	spec := chargingSpec(1, 0)
	for _, names := range [][]string{{"Payments"}, {"payments", "stock"}} {
		spec.Services = names
		if v := judgeCharging(t, spec, "charges", crash.Options{}); v.Verdict != crash.Unjudged || !strings.Contains(v.Error, names[len(names)-1]) {
			t.Errorf("%v: %s %s", names, v.Verdict, v.Error)
		}
	}
	plain := movingSpec()
	plain.Services = []string{"payments"}
	if v := judgeCharging(t, plain, "careful", crash.Options{}); v.Verdict != crash.Unjudged || !strings.Contains(v.Error, "Serving") {
		t.Errorf("%s %s", v.Verdict, v.Error)
	}
}
