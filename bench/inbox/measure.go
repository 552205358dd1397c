package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/inbox"
	"crashcourse/pkg/servertest"
	"crashcourse/pkg/state"
)

// world is a queue, and a database in which nothing keeps an effect from
// happening twice.
type world struct {
	*servertest.Servers
	ch *amqp.Channel
}

func newWorld(ctx context.Context) (*world, error) {
	s, err := servertest.Open(ctx)
	if err != nil {
		return nil, err
	}
	w := &world{Servers: s}
	if err := w.setUp(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return w, nil
}

func (w *world) setUp(ctx context.Context) (err error) {
	if err := inbox.Migrate(ctx, w.DB); err != nil {
		return err
	}
	_, err = w.DB.Exec(ctx, `CREATE TABLE effects (message_id text NOT NULL, done_at timestamptz NOT NULL);
		CREATE TABLE seen (message_id text PRIMARY KEY)`)
	if err != nil {
		return err
	}
	if w.ch, err = w.Conn.Channel(); err != nil {
		return err
	}
	if _, err := w.ch.QueueDeclare(queue, true, false, false, false, nil); err != nil {
		return err
	}
	return w.ch.Confirm(false)
}

// publish publishes messages of 256 bytes, and waits for the last confirm.
func (w *world) publish(ctx context.Context, ids ...string) error {
	var last *amqp.DeferredConfirmation
	for _, id := range ids {
		var err error
		last, err = w.ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, false, false, amqp.Publishing{
			MessageId: id, Headers: amqp.Table{"_watermill_message_uuid": id},
			DeliveryMode: amqp.Persistent, Body: make([]byte, 256),
		})
		if err != nil {
			return err
		}
	}
	if acked, err := last.WaitContext(ctx); err != nil || !acked {
		return fmt.Errorf("the last message was not confirmed: %w", err)
	}
	return nil
}

func newIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7()).String()
	}
	return ids
}

// until asks until the answer is yes, or nothing has changed for half a minute.
func until(ctx context.Context, ask func() (done bool, progress int, err error)) error {
	last, at := -1, time.Now()
	for {
		done, progress, err := ask()
		if err != nil || done {
			return err
		}
		if progress != last {
			last, at = progress, time.Now()
		}
		if time.Since(at) > 30*time.Second {
			return errors.New("nothing has moved for half a minute")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// effects counts the rows, and the messages that have one.
func (w *world) effects(ctx context.Context) (rows, messages int, err error) {
	err = w.DB.QueryRow(ctx, "SELECT count(*), count(DISTINCT message_id) FROM effects").Scan(&rows, &messages)
	return rows, messages, err
}

// ready is how many messages are in the queue and in nobody's hands.
func (w *world) ready() (int, error) {
	q, err := w.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	return q.Messages, err
}

func (b *bench) throughput(ctx context.Context, c consumer) (r result, err error) {
	n := 20_000
	if b.short {
		n = 5_000
	}
	if c.slow {
		n /= 10
	}
	w, err := newWorld(ctx)
	if err != nil {
		return r, err
	}
	defer w.Close()
	if err := w.publish(ctx, newIDs(n)...); err != nil {
		return r, err
	}
	if _, err := w.AdminDB.Exec(ctx, "CHECKPOINT"); err != nil {
		return r, err
	}
	p, err := w.start(c)
	if err != nil {
		return r, err
	}
	defer p.stop()
	err = until(ctx, func() (bool, int, error) {
		rows, _, err := w.effects(ctx)
		return rows >= n, rows, err
	})
	if err != nil {
		return r, err
	}
	// From the first effect to the last: what a start costs is not meant.
	var took time.Duration
	err = w.DB.QueryRow(ctx, "SELECT max(done_at) - min(done_at) FROM effects").Scan(&took)
	r.rate = float64(n) / took.Seconds()
	return r, err
}

const steadyRate = 100 // messages a second

func (b *bench) latency(ctx context.Context, c consumer) (r result, err error) {
	length := 15 * time.Second
	if b.short {
		length = 5 * time.Second
	}
	w, err := newWorld(ctx)
	if err != nil {
		return r, err
	}
	defer w.Close()
	p, err := w.start(c)
	if err != nil {
		return r, err
	}
	defer p.stop()
	// The first of all is not measured: it waits for the start.
	if err := w.publish(ctx, newIDs(1)...); err != nil {
		return r, err
	}
	if err := until(ctx, func() (bool, int, error) { rows, _, err := w.effects(ctx); return rows == 1, rows, err }); err != nil {
		return r, err
	}
	ids := newIDs(int(length.Seconds() * steadyRate))
	sent := make([]time.Time, len(ids))
	ticker := time.NewTicker(time.Second / steadyRate)
	defer ticker.Stop()
	for i, id := range ids {
		<-ticker.C
		sent[i] = time.Now()
		if err := w.publish(ctx, id); err != nil {
			return r, err
		}
	}
	if err := until(ctx, func() (bool, int, error) { rows, _, err := w.effects(ctx); return rows > len(ids), rows, err }); err != nil {
		return r, err
	}
	err = w.DB.QueryRow(ctx, `SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)
		FROM (SELECT 1000 * extract(epoch FROM e.done_at - s.at)::float8 AS ms
			FROM effects e JOIN unnest($1::text[], $2::timestamptz[]) AS s (id, at) ON s.id = e.message_id) t`, ids, sent).Scan(&r.p50, &r.p99)
	return r, err
}

// faults publishes each message twice, as a publisher does that was not sure, and
// kills two consumers again and again.
func (b *bench) faults(ctx context.Context, c consumer) (r result, err error) {
	length := 10 * time.Second
	if b.short {
		length = 4 * time.Second
	}
	w, err := newWorld(ctx)
	if err != nil {
		return r, err
	}
	defer w.Close()
	var pair [2]*process
	defer func() {
		for _, p := range pair {
			if p != nil {
				p.stop()
			}
		}
	}()
	for i := range pair {
		if pair[i], err = w.start(c); err != nil {
			return r, err
		}
	}
	var ids []string
	nextKill := time.Now().Add(300 * time.Millisecond)
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		some := newIDs(4)
		ids = append(ids, some...)
		for _, id := range some {
			if err := w.publish(ctx, id, id); err != nil {
				return r, err
			}
		}
		if time.Now().After(nextKill) {
			i := r.kills % 2
			pair[i].kill()
			r.kills++
			if pair[i], err = w.start(c); err != nil {
				return r, err
			}
			nextKill = time.Now().Add(300*time.Millisecond + rand.N(400*time.Millisecond))
		}
	}
	// What a consumer has in hand when it stops is in the queue again.
	for left := 1; left > 0; {
		if err := until(ctx, func() (bool, int, error) { n, err := w.ready(); return n == 0, n, err }); err != nil {
			return r, err
		}
		for _, p := range pair {
			p.stop()
		}
		if left, err = w.ready(); err != nil {
			return r, err
		}
		if left > 0 {
			if pair[0], err = w.start(c); err != nil {
				return r, err
			}
		}
	}
	rows, messages, err := w.effects(ctx)
	r.sent, r.twice, r.lost = len(ids), rows-messages, len(ids)-messages
	return r, err
}

// process is a consumer that runs.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	once  sync.Once
}

func (w *world) start(c consumer) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), roleEnv+"="+c.name, state.PostgresEnv+"="+w.DatabaseURL, state.AMQPEnv+"="+w.AMQPURL)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stop asks it to stop, and kills it if it does not.
func (p *process) stop() {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(10 * time.Second):
			p.kill()
		}
	})
}
