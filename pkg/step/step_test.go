package step_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/servertest"
	"crashcourse/pkg/state"
	"crashcourse/pkg/step"
	"crashcourse/pkg/view"
	"crashcourse/pkg/wire"
)

const workEnv = "STEP_TEST_WORK"

// TestMain is also the program that is stepped through.
func TestMain(m *testing.M) {
	work := map[string]func(context.Context) error{"place": place, "prepare": prepare, "poll": poll, "fail": failing, "hasty": hasty}[os.Getenv(workEnv)]
	if work == nil {
		os.Exit(m.Run())
	}
	var said step.Report
	if err := work(context.Background()); err != nil {
		said.Error = err.Error()
	}
	_ = json.NewEncoder(os.NewFile(step.ReportFD, "report")).Encode(said)
	os.Exit(0)
}

// place stores an order and then publishes its event: the dual write.
func place(ctx context.Context) error {
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", "o-1"); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	conn, err := amqp.Dial(os.Getenv("AMQP_URL"))
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	d, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", "shipping", false, false, amqp.Publishing{MessageId: "m-1", Body: []byte("o-1")})
	if err != nil {
		return err
	}
	if ok, err := d.WaitContext(ctx); err != nil || !ok {
		return fmt.Errorf("not confirmed: %v", err)
	}
	return conn.Close()
}

func prepare(ctx context.Context) error {
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close(ctx)
	if _, err := db.Exec(ctx, "CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY); DELETE FROM orders"); err != nil {
		return err
	}
	conn, err := amqp.Dial(os.Getenv("AMQP_URL"))
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if _, err := ch.QueueDeclare("shipping", true, false, false, false, nil); err != nil {
		return err
	}
	_, err = ch.QueuePurge("shipping", false)
	return err
}

// poll asks the same for ever.
func poll(ctx context.Context) error {
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	for {
		if _, err := db.Exec(ctx, "SELECT id FROM orders"); err != nil {
			return err
		}
	}
}

// hasty publishes and ends, without waiting for anything.
func hasty(ctx context.Context) error {
	conn, err := amqp.Dial(os.Getenv("AMQP_URL"))
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return ch.PublishWithContext(ctx, "", "shipping", false, false, amqp.Publishing{MessageId: "m-1", Body: []byte("hello")})
}

func failing(context.Context) error { return fmt.Errorf("out of stock") }

func work(t *testing.T, name string) step.Work {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return step.Work{Name: name, Path: self, Env: append(os.Environ(), workEnv+"="+name)}
}

// management is the address of the broker's management API.
func management(t *testing.T) string {
	t.Helper()
	at, err := state.LoadServers()
	if err == nil && at.Management == "" {
		at.Management, err = broker.ManagementURL(at.AMQP)
	}
	if err != nil {
		t.Fatal(err)
	}
	return at.Management
}

// follower keeps what a feed has told.
type follower struct {
	t       *testing.T
	s       *step.Session
	feed    *step.Feed
	rec     view.Recording
	pending []step.Held
	state   step.State
	notes   []string
	over    string
	resets  int
}

func start(t *testing.T, works ...string) *follower {
	t.Helper()
	servers := servertest.New(t)
	config := step.Config{Title: t.Name(), Prepare: work(t, "prepare"), Postgres: servers.DatabaseURL, AMQP: servers.AMQPURL, Management: management(t)}
	for _, w := range works {
		config.Works = append(config.Works, work(t, w))
	}
	s, err := step.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close("") })
	f := &follower{t: t, s: s, feed: s.Follow()}
	f.until("a message waits", func() bool { return f.state == step.Waiting })
	return f
}

// until takes in events until ok.
func (f *follower) until(what string, ok func() bool) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	for !ok() {
		events, err := f.feed.Next(ctx)
		if err != nil {
			f.t.Fatalf("waiting until %s: %v\nstate %s, pending %v\n%s", what, err, f.state, f.names(), f.story())
		}
		for _, e := range events {
			switch e.Type {
			case step.Reset:
				f.rec, f.pending, f.state = *e.Recording, e.Pending, e.State
				f.resets++
			case step.Passed:
				f.rec.Trace.Messages = append(f.rec.Trace.Messages, e.Messages...)
				if e.Scene != nil {
					f.rec.Scenes = append(f.rec.Scenes, *e.Scene)
				}
			case step.Pending:
				f.pending, f.state = e.Pending, e.State
			case step.Lives:
				f.rec.Lives = e.Lives
			case step.Note:
				f.notes = append(f.notes, e.Text)
			case step.Over:
				f.over = e.Text
			}
		}
	}
}

func (f *follower) do(c step.Command) {
	f.t.Helper()
	if err := f.s.Do(f.t.Context(), c); err != nil {
		f.t.Fatalf("%s: %v\n%s", c.Act, err, f.story())
	}
}

// stepTo lets messages pass until one named so waits.
func (f *follower) stepTo(name string) step.Held {
	f.t.Helper()
	for range 100 {
		for _, h := range f.pending {
			if h.Name == name {
				return h
			}
		}
		before := len(f.rec.Trace.Messages)
		f.do(step.Command{Act: step.Pass})
		f.until("the next message waits for "+name, func() bool {
			return len(f.rec.Trace.Messages) > before && f.state != step.Running
		})
		if f.state != step.Waiting {
			break
		}
	}
	f.t.Fatalf("%s never waited:\n%s", name, f.story())
	return step.Held{}
}

func (f *follower) waits(id string) bool {
	return slices.ContainsFunc(f.pending, func(h step.Held) bool { return h.ID == id })
}

func (f *follower) names() []string {
	var all []string
	for _, h := range f.pending {
		all = append(all, h.ID+" "+h.Name)
	}
	return all
}

func (f *follower) story() string {
	var b strings.Builder
	for _, m := range f.rec.Trace.Messages {
		fmt.Fprintln(&b, m.Seq, m.Point, m.Name, m.Effect, m.Fault)
	}
	return b.String()
}

// rows returns the rows of a thing in the newest scene.
func (f *follower) rows(thing string) [][]string {
	f.t.Helper()
	for _, t := range f.rec.Scenes[len(f.rec.Scenes)-1].Things {
		if t.Name == thing {
			return t.Rows
		}
	}
	return nil
}

func (f *follower) passed(name string) bool {
	return slices.ContainsFunc(f.rec.Trace.Messages, func(m wire.Message) bool { return m.Name == name && m.Fault == "" })
}

func TestStepToTheEnd(t *testing.T) {
	f := start(t, "place")
	f.stepTo("COMMIT")
	if rows := f.rows("orders"); len(rows) != 0 {
		t.Fatalf("before its COMMIT the row shows already: %v", rows)
	}
	f.stepTo("COMMIT done")
	f.until("the row shows", func() bool { return len(f.rows("orders")) == 1 })
	f.stepTo("basic.publish shipping")
	if rows := f.rows("shipping"); len(rows) != 0 {
		t.Fatalf("the message shows before it was published: %v", rows)
	}
	for range 50 {
		if f.state == step.Ended {
			break
		}
		n := len(f.rec.Trace.Messages)
		f.do(step.Command{Act: step.Pass})
		f.until("it goes on", func() bool { return len(f.rec.Trace.Messages) > n && f.state != step.Running })
	}
	f.until("it ends", func() bool { return f.state == step.Ended && f.rec.Lives[0].End != "" })
	if end := f.rec.Lives[0].End; end != "returned nil" {
		t.Errorf("the process %s", end)
	}
	f.until("the message shows", func() bool { return len(f.rows("shipping")) == 1 })
	if row := f.rows("shipping")[0]; !slices.Equal(row, []string{"shipping", "m-1", "o-1"}) {
		t.Errorf("in the queue: %q", row)
	}
	if err := f.s.Do(t.Context(), step.Command{Act: step.Pass}); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("a step after the end: %v", err)
	}
}

func TestCrashAndRestart(t *testing.T) {
	f := start(t, "place")
	h := f.stepTo("basic.publish shipping")
	f.do(step.Command{Act: step.Crash, ID: h.ID})
	f.until("it is dead", func() bool { return f.state == step.Crashed && f.rec.Lives[0].End != "" })
	if f.rec.Lives[0].End != "was crashed" {
		t.Errorf("the process %s", f.rec.Lives[0].End)
	}
	last := f.rec.Trace.Messages[len(f.rec.Trace.Messages)-1]
	if last.Name != "basic.publish shipping" || last.Fault != "kill" {
		t.Errorf("the last message is %v, fault %q; want the publish, struck by a kill", last, last.Fault)
	}
	f.do(step.Command{Act: step.Restart})
	f.until("the new one waits", func() bool { return f.state == step.Waiting && len(f.rec.Lives) == 2 })
	if l := f.rec.Lives[1]; l.Slot != 0 || l.Process != 2 {
		t.Errorf("the new process is %+v", l)
	}
	// The order is there already: the second run breaks on its key.
	for range 50 {
		if f.state != step.Waiting {
			break
		}
		n := len(f.rec.Trace.Messages)
		f.do(step.Command{Act: step.Pass})
		f.until("it goes on", func() bool {
			return len(f.rec.Trace.Messages) > n && f.state != step.Running || f.state == step.Crashed
		})
	}
	f.until("it ends", func() bool { return f.rec.Lives[1].End != "" })
	if end := f.rec.Lives[1].End; !strings.Contains(end, "duplicate key") {
		t.Errorf("the new process %s", end)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		before string
		act    step.Act
		end    string
		fault  string
	}{
		{"COMMIT", step.Cut, "returned an error", "cut"},
		{"INSERT orders", step.Fail, "40001", "fail"},
		{"basic.publish shipping", step.Nack, "not confirmed", "nack"},
	} {
		t.Run(string(c.act), func(t *testing.T) {
			f := start(t, "place")
			h := f.stepTo(c.before)
			f.do(step.Command{Act: c.act, ID: h.ID})
			f.until("the fault has struck", func() bool { return !f.waits(h.ID) })
			for range 50 {
				f.until("it goes on or ends", func() bool { return f.state != step.Running })
				if f.state != step.Waiting {
					break
				}
				h := f.pending[0]
				f.do(step.Command{Act: step.Pass, ID: h.ID})
				f.until("the message has passed", func() bool { return !f.waits(h.ID) })
			}
			f.until("it ends", func() bool { return f.rec.Lives[0].End != "" })
			if !strings.Contains(f.rec.Lives[0].End, c.end) {
				t.Errorf("the process %s; want something with %q", f.rec.Lives[0].End, c.end)
			}
			var faults []string
			for _, m := range f.rec.Trace.Messages {
				if m.Fault != "" {
					faults = append(faults, m.Name+" "+m.Fault)
				}
			}
			if !slices.Equal(faults, []string{c.before + " " + c.fault}) {
				t.Errorf("faults in the trace: %q", faults)
			}
		})
	}
}

func TestBlackhole(t *testing.T) {
	f := start(t, "place")
	h := f.stepTo("basic.publish shipping")
	f.do(step.Command{Act: step.Blackhole, ID: h.ID})
	f.until("it is swallowed", func() bool { return !f.passed(h.Name) && f.state == step.Running })
	if err := f.s.Do(t.Context(), step.Command{Act: step.Pass}); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("a step while nothing waits: %v", err)
	}
	f.do(step.Command{Act: step.Crash})
	f.until("it is dead", func() bool { return f.state == step.Crashed })
	if rows := f.rows("shipping"); len(rows) != 0 {
		t.Errorf("swallowed, and yet in the queue: %v", rows)
	}
}

// TestEndedBeforeItsMessage: a process may have ended when its last message is
// still under way. It arrives, unless the machine goes down.
func TestEndedBeforeItsMessage(t *testing.T) {
	f := start(t, "hasty")
	f.stepTo("basic.publish shipping")
	f.do(step.Command{Act: step.Pass})
	f.until("it ends", func() bool { return f.state == step.Ended && f.rec.Lives[0].End != "" })
	f.until("the message has arrived", func() bool { return len(f.rows("shipping")) == 1 })
	if end := f.rec.Lives[0].End; end != "returned nil" {
		t.Errorf("the process %s", end)
	}

	f.do(step.Command{Act: step.Rewind})
	f.until("it waits again", func() bool { return f.resets == 2 && f.state == step.Waiting })
	f.stepTo("basic.publish shipping")
	f.do(step.Command{Act: step.Crash})
	f.until("it is dead", func() bool { return f.state == step.Crashed && f.rec.Lives[0].End != "" })
	if rows := f.rows("shipping"); len(rows) != 0 {
		t.Errorf("crashed, and yet in the queue: %v", rows)
	}
	f.do(step.Command{Act: step.Restart})
	f.until("the new one waits", func() bool { return f.state == step.Waiting && len(f.rec.Lives) == 2 })
}

func TestRewind(t *testing.T) {
	f := start(t, "place")
	f.stepTo("COMMIT done")
	at := f.rec.Trace.Messages[len(f.rec.Trace.Messages)-1]
	f.stepTo("basic.publish shipping")
	f.do(step.Command{Act: step.Crash})
	f.do(step.Command{Act: step.Rewind, Seq: at.Seq})
	f.until("it waits there again", func() bool {
		return f.resets == 2 && f.state == step.Waiting && f.pending[0].Name == "COMMIT done"
	})
	f.until("the row shows", func() bool { return len(f.rows("orders")) == 1 })
	if len(f.notes) > 0 {
		t.Errorf("notes: %q", f.notes)
	}
	f.stepTo("basic.publish shipping") // the other way: nobody crashes it this time
	f.do(step.Command{Act: step.Rewind})
	f.until("the start", func() bool { return f.resets == 3 && f.state == step.Waiting && len(f.rec.Trace.Messages) == 0 })
	if rows := f.rows("orders"); len(rows) != 0 {
		t.Errorf("at the start there is %v", rows)
	}
}

func TestRunToEffect(t *testing.T) {
	f := start(t, "place")
	var seen []string
	for range 20 {
		h := f.pending[0]
		f.do(step.Command{Act: step.ToEffect})
		f.until("it has stopped", func() bool { return !f.waits(h.ID) && f.state != step.Running })
		seen = append(seen, f.pending[0].Name)
		if f.pending[0].Effect == wire.Confirm {
			break
		}
	}
	want := []string{"INSERT orders", "COMMIT", "basic.publish shipping", "basic.ack 1"}
	if !slices.Equal(seen, want) {
		t.Errorf("stopped at %q, want %q\n%s", seen, want, f.story())
	}
}

func TestNothingToDo(t *testing.T) {
	f := start(t, "poll")
	f.do(step.Command{Act: step.ToEffect})
	f.until("it says so", func() bool { return len(f.notes) == 1 })
	if !strings.Contains(f.notes[0], "nothing to do") {
		t.Errorf("note: %q", f.notes[0])
	}
}

func TestErrorOfTheProgram(t *testing.T) {
	servers := servertest.New(t)
	s, err := step.Start(t.Context(), step.Config{Works: []step.Work{work(t, "fail")}, Postgres: servers.DatabaseURL, AMQP: servers.AMQPURL})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close("")
	f := &follower{t: t, s: s, feed: s.Follow()}
	f.until("it ends", func() bool { return len(f.rec.Lives) == 1 && f.rec.Lives[0].End != "" })
	if end := f.rec.Lives[0].End; end != "returned an error: out of stock" {
		t.Errorf("it %s", end)
	}
}

func TestPrepareFails(t *testing.T) {
	servers := servertest.New(t)
	_, err := step.Start(t.Context(), step.Config{Prepare: work(t, "fail"), Works: []step.Work{work(t, "place")}, Postgres: servers.DatabaseURL, AMQP: servers.AMQPURL})
	if err == nil || !strings.Contains(err.Error(), "out of stock") {
		t.Errorf("error: %v", err)
	}
}

func TestTwoFollowersAndTheEnd(t *testing.T) {
	f := start(t, "place")
	g := &follower{t: t, s: f.s, feed: f.s.Follow()}
	g.until("the second is told all", func() bool { return g.state == step.Waiting })
	f.stepTo("COMMIT")
	g.until("the second sees the same", func() bool { return len(g.pending) == 1 && g.pending[0].Name == "COMMIT" })
	f.s.Close("The lab stops.")
	f.until("it is over", func() bool { return f.over != "" })
	if f.over != "The lab stops." || f.state != step.Closed {
		t.Errorf("over: %q, state %s", f.over, f.state)
	}
	if _, err := f.feed.Next(t.Context()); err != step.ErrOver {
		t.Errorf("after the end: %v", err)
	}
	if err := f.s.Do(t.Context(), step.Command{Act: step.Pass}); err == nil || err.Error() != "The lab stops." {
		t.Errorf("a step after the end: %v", err)
	}
}

// TestSomebodyElse: what others change shows too.
func TestSomebodyElse(t *testing.T) {
	servers := servertest.New(t)
	s, err := step.Start(t.Context(), step.Config{Prepare: work(t, "prepare"), Works: []step.Work{work(t, "place")},
		Postgres: servers.DatabaseURL, AMQP: servers.AMQPURL, Management: management(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close("")
	f := &follower{t: t, s: s, feed: s.Follow()}
	f.until("it waits", func() bool { return f.state == step.Waiting })
	if _, err := servers.DB.Exec(t.Context(), "INSERT INTO orders VALUES ('o-7')"); err != nil {
		t.Fatal(err)
	}
	f.until("the row shows", func() bool { return len(f.rows("orders")) == 1 })
}

// TestLockedTable: a program that locks what is looked at stops nobody.
func TestLockedTable(t *testing.T) {
	servers := servertest.New(t)
	if _, err := servers.DB.Exec(t.Context(), `CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1);
		CREATE TABLE b_version (id int, version_id bigint, is_applied bool)`); err != nil {
		t.Fatal(err)
	}
	tx, err := servers.DB.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), "LOCK TABLE a IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	o, err := step.NewObserver(servers.DatabaseURL, servers.AMQPURL, management(t))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	things, err := o.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(things) != 2 || things[0].Note == "" || len(things[1].Rows) != 1 {
		t.Errorf("seen: %+v", things)
	}
}
