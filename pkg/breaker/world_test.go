package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/breaker"
	"crashcourse/pkg/servertest"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// behaviour is what a bank does besides charging.
type behaviour func(w http.ResponseWriter, r *http.Request, key string) (answered bool)

// bank is a payment service: it charges once for each idempotency key, also if two
// requests come at the same time, and answers the same each time.
type bank struct {
	*httptest.Server
	mu      sync.Mutex
	charges map[string]int    // by key: how often it would have charged without the key's help
	amounts map[string]string // by key
	calls   int

	// before and after, if set, are called before and after the charge. They may
	// hang or abort, and if they return true they have answered.
	before, after behaviour
}

func newBank() *bank {
	b := &bank{charges: map[string]int{}, amounts: map[string]string{}}
	b.Server = httptest.NewServer(http.HandlerFunc(b.serve))
	return b
}

func (b *bank) serve(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	b.calls++
	before, after := b.before, b.after
	b.mu.Unlock()
	if before != nil && before(w, r, key) {
		return
	}
	b.mu.Lock()
	b.charges[key]++
	if b.amounts[key] == "" {
		b.amounts[key] = string(body)
	}
	b.mu.Unlock()
	if after != nil && after(w, r, key) {
		return
	}
	fmt.Fprintf(w, "charged %s", body)
}

// set changes how the bank behaves.
func (b *bank) set(before, after behaviour) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before, b.after = before, after
}

// down answers 503 without charging.
func down(w http.ResponseWriter, _ *http.Request, _ string) bool {
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

// hang does not answer until the client gives up.
func hang(_ http.ResponseWriter, r *http.Request, _ string) bool {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// slow takes its time.
func slow(d time.Duration) behaviour {
	return func(http.ResponseWriter, *http.Request, string) bool { time.Sleep(d); return false }
}

func (b *bank) called() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

func (b *bank) charged() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[string]string{}
	for k, v := range b.amounts {
		all[k] = v
	}
	return all
}

// pay calls a bank, as Call does.
func pay(url string) func(context.Context, breaker.Attempt) ([]byte, error) {
	return func(ctx context.Context, a breaker.Attempt) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(string(a.Body)))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Idempotency-Key", a.Key)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		switch {
		case err != nil:
			return nil, err
		case res.StatusCode >= 500:
			return nil, fmt.Errorf("the bank says %s", res.Status)
		case res.StatusCode >= 400:
			return nil, breaker.Permanent(fmt.Errorf("the bank says %s", res.Status))
		}
		return answer, nil
	}
}

// world is a database, a bank, and the orders that payments are for. Nothing in the
// table effects is unique, so that an effect that happens twice can be seen.
type world struct {
	*servertest.Servers
	t    *testing.T
	bank *bank
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{Servers: servertest.New(t), t: t, bank: newBank()}
	t.Cleanup(w.bank.Close)
	w.must(breaker.Migrate(t.Context(), w.DB))
	w.exec("CREATE TABLE effects (key text NOT NULL, answer text NOT NULL)")
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	_, err := w.DB.Exec(w.t.Context(), sql, args...)
	w.must(err)
}

func effect(ctx context.Context, tx pgx.Tx, a breaker.Attempt, answer []byte) error {
	_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1, $2)", a.Key, string(answer))
	return err
}

// quick are options that make a breaker decide in tens of milliseconds.
func (w *world) quick(o breaker.Options) *breaker.Breaker {
	w.t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	if o.ResetTimeout == 0 {
		o.ResetTimeout = 50 * time.Millisecond
	}
	o.Logger = w.logger()
	return newBreaker(w.t, o)
}

func (w *world) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// queue makes a queue, filling in what a test leaves out.
func (w *world) queue(o breaker.QueueOptions) *breaker.Queue {
	w.t.Helper()
	o.Name = "payments"
	if o.Breaker == nil {
		o.Breaker = w.quick(breaker.Options{})
	}
	if o.Call == nil {
		o.Call = pay(w.bank.URL)
	}
	if o.Done == nil {
		o.Done = effect
	}
	if o.MinRetry == 0 {
		o.MinRetry, o.MaxRetry = 5*time.Millisecond, 100*time.Millisecond
	}
	o.PollInterval = 10 * time.Millisecond
	o.Logger = w.logger()
	q, err := breaker.NewQueue(w.DB, o)
	w.must(err)
	return q
}

// run runs a queue until stop is called, which returns what Run has returned.
func (w *world) run(q *breaker.Queue) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return errors.New("the queue did not stop")
		}
	})
	w.t.Cleanup(func() { _ = stop() })
	return stop
}

func (w *world) submit(q *breaker.Queue, key, body string) breaker.Result {
	w.t.Helper()
	r, err := q.Submit(w.t.Context(), breaker.Request{Key: key, Body: []byte(body)})
	w.must(err)
	return r
}

func (w *world) stats(q *breaker.Queue) breaker.Stats {
	w.t.Helper()
	s, err := q.Stats(context.Background())
	w.must(err)
	return s
}

func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// awaitSettled waits until nothing is queued, and checks that each of these requests,
// whose bodies are their keys, was charged and has had its effect once.
func (w *world) awaitSettled(q *breaker.Queue, keys ...string) {
	w.t.Helper()
	w.await("all is settled", func() bool { return w.stats(q).Queued == 0 })
	w.checkEffects(keys...)
}

func (w *world) checkEffects(keys ...string) {
	w.t.Helper()
	rows, err := w.DB.Query(context.Background(), "SELECT key, count(*), min(answer) FROM effects GROUP BY key")
	w.must(err)
	effects := map[string]int{}
	var key, answer string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&key, &n, &answer}, func() error {
		effects[key] = n
		if answer != "charged "+key {
			w.t.Errorf("%s has the answer %q", key, answer)
		}
		return nil
	})
	w.must(err)
	charged := w.bank.charged()
	for _, key := range keys {
		if effects[key] != 1 || charged[key] != key {
			w.t.Errorf("%s: %d effects, charged %q", key, effects[key], charged[key])
		}
	}
	if len(effects) != len(keys) || len(charged) != len(keys) {
		w.t.Errorf("%d effects and %d charges of %d requests", len(effects), len(charged), len(keys))
	}
}

// numbered returns n keys.
func numbered(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("charge-%03d", i))
	}
	return keys
}
