package breaker_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/breaker"
	"crashcourse/pkg/postgres"
)

// The test binary is also the service that is killed: roleEnv says what it does, and
// killEnv at which step it kills itself.
const (
	roleEnv     = "BREAKER_TEST_ROLE"
	killEnv     = "BREAKER_TEST_KILL"
	databaseEnv = "BREAKER_TEST_DATABASE"
	bankEnv     = "BREAKER_TEST_BANK"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func dieAt(step string) {
	if os.Getenv(killEnv) == step {
		kill(os.Getpid())
		select {}
	}
}

// kill is kill -9.
func kill(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

// killable are the options of all queues of these tests. What a dead process had in
// hand is tried again when the lease is over.
func killable(call func(context.Context, breaker.Attempt) ([]byte, error)) breaker.QueueOptions {
	return breaker.QueueOptions{
		Name: "payments", Timeout: time.Second, Lease: 2 * time.Second, MinRetry: 5 * time.Millisecond, MaxRetry: 100 * time.Millisecond,
		Attempts: 1000,
		Call: func(ctx context.Context, a breaker.Attempt) ([]byte, error) {
			dieAt("stored")
			answer, err := call(ctx, a)
			if err == nil {
				dieAt("answered")
			}
			return answer, err
		},
		Done: func(ctx context.Context, tx pgx.Tx, a breaker.Attempt, answer []byte) error {
			err := effect(ctx, tx, a, answer)
			dieAt("marking")
			return err
		},
	}
}

func play(role string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	pool, err := postgres.Open(ctx, os.Getenv(databaseEnv))
	if err != nil {
		return err
	}
	defer pool.Close()
	o := killable(pay(os.Getenv(bankEnv) + "/" + strconv.Itoa(os.Getpid())))
	o.PollInterval = 5 * time.Millisecond
	if o.Breaker, err = breaker.New(breaker.Options{Timeout: 500 * time.Millisecond, ResetTimeout: 20 * time.Millisecond}); err != nil {
		return err
	}
	q, err := breaker.NewQueue(pool, o)
	if err != nil {
		return err
	}
	if role == "work" {
		return q.Run(ctx)
	}
	_, err = q.Submit(ctx, breaker.Request{Key: "charge-1", Body: []byte("charge-1")})
	dieAt("done")
	return err
}

// start starts a process that works on the world's queue.
func (w *world) start(role, kill string) *exec.Cmd {
	w.t.Helper()
	self, err := os.Executable()
	w.must(err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, killEnv+"="+kill, databaseEnv+"="+w.DatabaseURL, bankEnv+"="+w.bank.URL)
	cmd.Stdout, cmd.Stderr = w.t.Output(), w.t.Output()
	w.must(cmd.Start())
	w.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func (w *world) survivor() *breaker.Queue {
	o := killable(pay(w.bank.URL))
	o.Breaker = w.quick(breaker.Options{Timeout: 500 * time.Millisecond})
	return w.queue(o)
}

// kill -9 at every step, of the process that submits and of the worker: the payment
// is made, once.
func TestKilledAtEveryStep(t *testing.T) {
	for _, role := range []string{"submit", "work"} {
		for _, step := range []string{"stored", "charged", "answered", "marking", "done"} {
			if role == "work" && step == "done" {
				continue
			}
			t.Run(role+" "+step, func(t *testing.T) {
				w := newWorld(t)
				killed := false
				if step == "charged" { // by the bank, which has charged and not answered
					w.bank.set(nil, func(_ http.ResponseWriter, r *http.Request, _ string) bool {
						if pid, err := strconv.Atoi(strings.Trim(r.URL.Path, "/")); err == nil && !killed {
							killed = true
							kill(pid)
						}
						return false
					})
				}
				q := w.survivor()
				if role == "work" {
					w.must(pgx.BeginFunc(t.Context(), w.DB, func(tx pgx.Tx) error {
						return q.Enqueue(t.Context(), tx, breaker.Request{Key: "charge-1", Body: []byte("charge-1")})
					}))
					w.exec("UPDATE breaker_requests SET next_attempt_at = now()")
				}
				err := w.start(role, step).Wait()
				if err == nil || !strings.Contains(err.Error(), "killed") {
					t.Fatalf("it was not killed: %v", err)
				}
				calls := w.bank.called()
				w.run(q)
				w.awaitSettled(q, "charge-1")
				want := map[string]int{"stored": 1, "charged": 2, "answered": 2, "marking": 2, "done": 1}[step]
				if n := w.bank.called(); n < want || step == "done" && n != calls {
					t.Errorf("%d calls, want %d", n, want)
				}
			})
		}
	}
}

// Two workers are killed at any moment, again and again.
func TestKilledAgainAndAgain(t *testing.T) {
	w := newWorld(t)
	w.bank.set(slow(5*time.Millisecond), nil)
	q := w.survivor()
	keys := numbered(60)
	w.must(pgx.BeginFunc(t.Context(), w.DB, func(tx pgx.Tx) error {
		for _, key := range keys {
			if err := q.Enqueue(t.Context(), tx, breaker.Request{Key: key, Body: []byte(key)}); err != nil {
				return err
			}
		}
		return nil
	}))
	w.exec("UPDATE breaker_requests SET next_attempt_at = now()")
	for range 8 {
		called := w.bank.called()
		one, two := w.start("work", ""), w.start("work", "")
		w.await("they work", func() bool { return w.bank.called() > called || w.stats(q).Queued == 0 })
		time.Sleep(rand.N(30 * time.Millisecond))
		for _, cmd := range []*exec.Cmd{one, two} {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	w.run(q)
	w.awaitSettled(q, keys...)
}

// SIGTERM: it ends by itself, and well.
func TestTerminated(t *testing.T) {
	w := newWorld(t)
	q := w.survivor()
	w.must(pgx.BeginFunc(t.Context(), w.DB, func(tx pgx.Tx) error {
		return q.Enqueue(t.Context(), tx, breaker.Request{Key: "charge-1", Body: []byte("charge-1")})
	}))
	w.exec("UPDATE breaker_requests SET next_attempt_at = now()")
	cmd := w.start("work", "")
	w.awaitSettled(q, "charge-1")
	w.must(cmd.Process.Signal(syscall.SIGTERM))
	w.must(cmd.Wait())
}
