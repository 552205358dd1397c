package crash_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
	"crashcourse/pkg/state"
)

// An HTTP service is crashed while a client places orders. The service is a program
// of its own, in example/shop, and knows nothing of this. It stores an order,
// publishes the event, waits for the confirm, and answers. The sweep finds that an
// order can be stored of which nobody is ever told. With an outbox the same service
// passes the same sweep.
func ExampleJudge_service() {
	dir, err := os.MkdirTemp("", "shop-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	shop := filepath.Join(dir, "shop")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", shop, "./example/shop").CombinedOutput(); err != nil {
		fmt.Printf("%v\n%s", err, out)
		return
	}
	for _, flag := range []string{"-outbox=false", "-outbox=true"} {
		v, err := crashShop(context.Background(), crash.Program{Path: shop, Args: []string{"-addr", "{{addr}}", flag}})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("shop", flag, "has the verdict", v.Verdict)
		switch {
		case v.Failure != nil:
			fmt.Println(v.Failure.Invariant, "is broken by", v.Failure.Schedule)
			fmt.Println(strings.Join(v.Failure.Story, "\n"))
		case v.Error != "": // nothing is known: the servers or the machine got in the way
			fmt.Println(v.Error)
		}
	}
	// Output:
	// shop -outbox=false has the verdict fail
	// stored-is-announced is broken by kill@p1.amqp1>6
	// Before the fault the program had sent INSERT orders.
	// At point p1.amqp1>6, after INSERT orders done and before basic.publish order.placed, the process was killed.
	// Afterwards the program sent 3 × INSERT orders, 2 × basic.publish order.placed.
	// Order 1 is stored, and nobody was told.
	// shop -outbox=true has the verdict pass
}

// crashShop judges one build of the shop.
func crashShop(ctx context.Context, shop crash.Program) (crash.Verdict, error) {
	servers, err := state.LoadServers() // those of `crashcourse up`, or of the environment
	if err != nil {
		return crash.Verdict{}, err
	}
	schema, err := os.ReadFile("example/shop/schema.sql")
	if err != nil {
		return crash.Verdict{}, err
	}
	spec := &crash.Spec{
		ID:        "shop/orders",
		Schema:    string(schema),
		Grants:    "GRANT ALL ON ALL TABLES IN SCHEMA public TO {{answer}}",
		Exchanges: []string{"shop"},
		Invariants: []crash.Invariant{
			{Name: "answered-is-stored", Says: "An order that was answered with 201 or 200 is in the table."},
			{Name: "stored-is-announced", Says: "Every order in the table is announced."},
		},
		Faults: []crash.Fault{crash.Kill, crash.Cut, crash.Blackhole, crash.Nack, crash.FailStatement, crash.Shutdown},
		Scenario: func(a *crash.Arena, rng *rand.Rand, _ string) (crash.Scenario, error) {
			s := &shopping{arena: a, answered: map[string]bool{}}
			for range 3 {
				s.orders = append(s.orders, stage.UUID(rng).String())
			}
			return s, nil
		},
	}
	return crash.Judge(ctx, servers, spec, shop, crash.Options{Seed: 1})
}

// shopping is the scenario of one run: a client places orders, one after the other.
type shopping struct {
	crash.Quiet // answers the calls that this scenario has no use for
	arena       *crash.Arena
	orders      []string // their IDs
	listener    *stage.Listener

	client   sync.WaitGroup
	leave    context.CancelFunc // ends the client
	mu       sync.Mutex
	answered map[string]bool // by ID
}

func (s *shopping) Reset(ctx context.Context) (err error) {
	if _, err := s.arena.DB.Exec(ctx, "TRUNCATE public.orders, public.outbox, public.outbox_held"); err != nil {
		return fmt.Errorf("empty the tables: %w", err)
	}
	s.listener, err = stage.Listen(s.arena.Conn, "shop", "#")
	return err
}

// Started sends the client to the first process. Those that replace it listen on
// the same address.
func (s *shopping) Started(ctx context.Context, p *crash.Process) error {
	if s.leave != nil {
		return nil
	}
	ctx, s.leave = context.WithCancel(ctx)
	s.client.Go(func() {
		for _, id := range s.orders {
			for !order(ctx, p.Addr(), id) { // the shop may be down: the client asks again
				select {
				case <-ctx.Done():
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
			s.mu.Lock()
			s.answered[id] = true
			s.mu.Unlock()
		}
	})
	return nil
}

// order asks the shop once, and says whether it took the order.
func order(ctx context.Context, addr, id string) bool {
	body := strings.NewReader(fmt.Sprintf(`{"id": %q, "cents": 4200}`, id))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/orders", body)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusCreated || answer.StatusCode == http.StatusOK
}

// Done looks whether all orders are answered, and then whether an event still
// waits: the other way round, one could come between.
func (s *shopping) Done(ctx context.Context) (bool, error) {
	s.mu.Lock()
	open := len(s.orders) - len(s.answered)
	s.mu.Unlock()
	if open > 0 {
		return false, nil
	}
	var waiting int
	err := s.arena.DB.QueryRow(ctx, "SELECT count(*) FROM public.outbox WHERE published_at IS NULL").Scan(&waiting)
	return waiting == 0, err
}

func (s *shopping) Progress() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.answered) + len(s.listener.Arrived())
}

func (s *shopping) Check(ctx context.Context, _ int) ([]crash.Violation, error) {
	rows, err := s.arena.DB.Query(ctx, "SELECT id FROM public.orders")
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	if err := s.listener.Sync(ctx); err != nil { // all that was published has arrived
		return nil, err
	}
	stored, announced := map[string]bool{}, map[string]bool{}
	for _, id := range ids {
		stored[id] = true
	}
	for _, d := range s.listener.Arrived() {
		var event struct{ ID string }
		if json.Unmarshal(d.Body, &event) == nil {
			announced[event.ID] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var broken []crash.Violation
	for i, id := range s.orders {
		switch {
		case s.answered[id] && !stored[id]:
			broken = append(broken, crash.Violation{Invariant: "answered-is-stored", Detail: fmt.Sprintf("order %d was answered, and is not stored", i+1)})
		case stored[id] && !announced[id]:
			broken = append(broken, crash.Violation{Invariant: "stored-is-announced", Detail: fmt.Sprintf("order %d is stored, and nobody was told", i+1)})
		}
	}
	return broken, nil
}

func (s *shopping) Close() {
	if s.leave != nil {
		s.leave()
		s.client.Wait()
	}
	if s.listener != nil {
		s.listener.Close()
	}
}
