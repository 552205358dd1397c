package view

import (
	"fmt"
	"strings"
	"time"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/wire"
)

// tape records fabricated messages as a proxy would have seen them.
type tape struct {
	trace wire.Trace
	index map[string]int
}

func newTape() *tape {
	return &tape{trace: wire.Trace{Version: wire.TraceVersion}, index: map[string]int{}}
}

func (t *tape) add(m wire.Message) *wire.Message {
	m.Seq = len(t.trace.Messages) + 1
	m.Time = time.Duration(m.Seq) * 400 * time.Microsecond
	key := fmt.Sprint(m.Process, m.Protocol, m.Conn, m.Dir)
	if m.Step {
		t.index[key]++
	}
	m.Index = t.index[key]
	m.Size = 64
	t.trace.Messages = append(t.trace.Messages, m)
	return &t.trace.Messages[len(t.trace.Messages)-1]
}

func (t *tape) send(process int, proto wire.Protocol, name string, effect wire.Effect) *wire.Message {
	return t.add(wire.Message{
		Point: wire.Point{Process: process, Protocol: proto, Conn: 1, Dir: wire.ToServer},
		Step:  true, Type: "Query", Name: name, Effect: effect, Detail: name,
	})
}

func (t *tape) back(process int, proto wire.Protocol, name string, effect wire.Effect) *wire.Message {
	return t.add(wire.Message{
		Point: wire.Point{Process: process, Protocol: proto, Conn: 1, Dir: wire.ToClient},
		Step:  true, Type: "CommandComplete", Name: name, Effect: effect,
	})
}

// query is a statement and its answer, with protocol detail between.
func (t *tape) query(process int, name string, effect wire.Effect) {
	t.send(process, wire.PG, name, effect)
	t.add(wire.Message{Point: wire.Point{Process: process, Protocol: wire.PG, Conn: 1, Dir: wire.ToClient}, Type: "RowDescription", Name: "RowDescription"})
	t.back(process, wire.PG, name+" done", wire.Done)
}

func (t *tape) setUp(process int) {
	for _, s := range []string{"channel.open", "confirm.select"} {
		t.send(process, wire.AMQP, s, wire.NoEffect)
		t.back(process, wire.AMQP, s+"-ok", wire.NoEffect)
	}
}

func (t *tape) publish(process, tag int) *wire.Message {
	m := t.send(process, wire.AMQP, "basic.publish order.placed", wire.Publish)
	m.Type, m.DeliveryTag, m.MessageID = "basic.publish", uint64(tag), fmt.Sprintf("0190aa%02d", tag)
	m.Detail = fmt.Sprintf(`{"order_id":"0190aa%02d","total_cents":4200}`, tag)
	return m
}

func (t *tape) confirm(process, tag int) {
	t.back(process, wire.AMQP, fmt.Sprintf("basic.ack %d", tag), wire.Confirm).Type = "basic.ack"
}

const lostSQL = "SELECT outbox FOR UPDATE SKIP LOCKED"

// goldenTrace is a relay that marks before it publishes, without a fault.
func goldenTrace() *wire.Trace {
	t := newTape()
	t.setUp(1)
	t.query(1, "BEGIN", wire.NoEffect)
	t.query(1, lostSQL, wire.NoEffect)
	t.query(1, "UPDATE outbox", wire.Write)
	t.query(1, "COMMIT", wire.Commit)
	for i := 1; i <= 3; i++ {
		t.publish(1, i)
	}
	for i := 1; i <= 3; i++ {
		t.confirm(1, i)
	}
	for range 5 {
		t.query(1, "BEGIN", wire.NoEffect)
		t.query(1, lostSQL, wire.NoEffect)
		t.query(1, "COMMIT", wire.Commit)
	}
	return &t.trace
}

// lost is the same, killed before its third publish.
func lost() *wire.Trace {
	t := newTape()
	t.setUp(1)
	t.query(1, "BEGIN", wire.NoEffect)
	t.query(1, lostSQL, wire.NoEffect)
	t.query(1, "UPDATE outbox", wire.Write)
	t.query(1, "COMMIT", wire.Commit)
	t.publish(1, 1)
	t.publish(1, 2)
	t.publish(1, 3).Fault = "kill"
	t.setUp(2)
	for range 6 {
		t.query(2, "BEGIN", wire.NoEffect)
		t.query(2, lostSQL, wire.NoEffect)
		t.query(2, "COMMIT", wire.Commit)
	}
	return &t.trace
}

// uncommitted is a relay killed with a transaction open.
func uncommitted() *wire.Trace {
	t := newTape()
	t.setUp(1)
	t.query(1, "BEGIN", wire.NoEffect)
	t.query(1, lostSQL, wire.NoEffect)
	t.publish(1, 1)
	t.confirm(1, 1)
	t.query(1, "UPDATE outbox", wire.Write)
	t.send(1, wire.PG, "COMMIT", wire.Commit).Fault = "freeze"
	t.setUp(2)
	t.query(2, "BEGIN", wire.NoEffect)
	t.query(2, lostSQL, wire.NoEffect)
	t.publish(2, 1)
	t.confirm(2, 1)
	t.query(2, "UPDATE outbox", wire.Write)
	t.query(2, "COMMIT", wire.Commit)
	return &t.trace
}

// three are three relays at once, one of which is cut off and one replaced.
func three() *wire.Trace {
	t := newTape()
	for p := 1; p <= 3; p++ {
		t.query(p, "BEGIN", wire.NoEffect)
	}
	t.query(2, "SELECT pg_try_advisory_xact_lock", wire.NoEffect)
	t.query(2, lostSQL, wire.NoEffect)
	t.publish(2, 1)
	t.confirm(2, 1)
	t.query(1, lostSQL, wire.NoEffect)
	t.query(3, "INSERT leases", wire.Write)
	t.send(2, wire.PG, "UPDATE outbox", wire.Write).Fault = "kill"
	t.query(1, "DELETE outbox", wire.Write)
	t.query(3, "ROLLBACK", wire.Rollback)
	t.query(4, "BEGIN", wire.NoEffect)
	t.query(4, lostSQL, wire.NoEffect)
	t.query(1, "COMMIT", wire.Commit)
	t.query(3, "BEGIN", wire.NoEffect)
	t.publish(4, 1)
	t.send(3, wire.PG, "COMMIT", wire.Commit).Fault = "cut"
	t.confirm(4, 1)
	t.query(4, "UPDATE outbox", wire.Write)
	t.query(4, "COMMIT", wire.Commit)
	t.query(1, "BEGIN", wire.NoEffect)
	return &t.trace
}

var invariants = []crash.InvariantResult{
	{Name: "no-lost-event", Held: true, Says: "Every committed event reaches every queue that is bound to the exchange, at least once."},
	{Name: "no-phantom-event", Held: true, Says: "Nothing is published that was never committed."},
	{Name: "order-per-aggregate", Held: true, Says: "The first arrivals of one aggregate's events come in the order of seq."},
	{Name: "comes-to-rest", Held: true, Says: "When nothing is left to publish, nothing is published."},
}

// sweep strikes every step of the golden run up to its last confirm.
func sweep(g *wire.Trace) []crash.PointResult {
	var out []crash.PointResult
	out = append(out,
		crash.PointResult{At: "start", Message: "the first message", Outcome: crash.Held},
		crash.PointResult{At: "start", Message: "no queue is bound to the exchange yet", Fault: "no-queue-yet", Outcome: crash.Held},
	)
	for i, m := range g.Messages {
		if !m.Step || i > 24 || m.Dir == wire.ToClient && m.Effect != wire.Confirm && m.Name != "COMMIT done" {
			continue
		}
		faults := []string{"kill", "cut"}
		switch {
		case m.Effect == wire.Publish:
			faults = append(faults, "blackhole", "nack")
		case m.Protocol == wire.PG && m.Effect != wire.Done:
			faults = append(faults, "fail")
		}
		for _, f := range faults {
			p := crash.PointResult{At: m.Point.String(), Message: m.Name, Fault: f, Outcome: crash.Held}
			p.Pruned = m.Effect == wire.NoEffect && m.Protocol == wire.AMQP && f == "cut"
			out = append(out, p)
		}
	}
	return out
}

func passing() crash.Verdict {
	return crash.Verdict{
		Version: 1, Exercise: "outbox/relay", Verdict: crash.Pass, Score: 1, Seed: 7919, Mode: "quick",
		DurationMS: 4230, Invariants: invariants, Points: sweep(goldenTrace()), Runs: 41, Golden: goldenTrace(),
		Notes: []string{"3 points of the start-up were left out: nothing lasts before them."},
	}
}

func failing() crash.Verdict {
	v := passing()
	v.Verdict, v.Score, v.DurationMS, v.Runs = crash.Fail, 0.9, 1870, 38
	v.Invariants = append([]crash.InvariantResult{}, invariants...)
	v.Invariants[0].Held = false
	for i, p := range v.Points {
		switch {
		case p.At == "p1.amqp1>5" && p.Fault == "kill", p.At == "p1.amqp1>5" && p.Fault == "nack":
			v.Points[i].Outcome, v.Points[i].Violation = crash.Violated, "no-lost-event"
			v.Points[i].Detail = "event 3 (order.placed of order 0190aa03) is marked as published and is in no queue"
		case p.At == "p1.amqp1<5":
			v.Points[i].Outcome = crash.Unreached
		}
	}
	v.Failure = &crash.Failure{
		Invariant: "no-lost-event", At: "p1.amqp1>5", Message: "basic.publish order.placed", Fault: "kill",
		Detail: "Event 3 (order.placed of order 0190aa03) is marked as published and is in no queue: it is lost for ever.",
		Story: []string{
			"The relay read events 1, 2 and 3 from outbox.",
			"It set published_at on all three and committed.",
			"It published events 1 and 2.",
			"It was killed before event 3 went out, and started again.",
			"The new process found no row with published_at NULL, and published nothing.",
		},
		Tables: []crash.Table{
			{Name: "outbox", When: "at the crash", Columns: []string{"seq", "type", "aggregate_id", "published_at"}, Rows: [][]string{
				{"1", "order.placed", "0190aa01", "12:00:01.204"}, {"2", "order.placed", "0190aa02", "12:00:01.204"}, {"3", "order.placed", "0190aa03", "12:00:01.204"},
			}, Marks: []int{2}},
			{Name: "queue events", When: "after recovery", Columns: []string{"#", "message_id", "type", "order"}, Rows: [][]string{
				{"1", "0190aa01", "order.placed", "1"}, {"2", "0190aa02", "order.placed", "2"},
			}},
		},
		Expected: "A row of outbox that says published has its message in the queue. After the crash event 3 would still be waiting, and the new process would publish it.",
		Hints: []string{
			"Look at what is already true in the database at the moment the process dies.",
			"Which of the two servers should hear of an event first, if hearing twice is allowed and never hearing is not?",
			"Publish, wait for the broker's confirm, and only then mark the row.",
		},
		Replay: "crashcourse replay outbox/relay --seed 7919 --schedule 'kill@p1.amqp1>5'",
		Trace:  lost(),
	}
	v.Output = "2026/01/02 12:00:01 relay: 3 events\n2026/01/02 12:00:01 relay: marked\n"
	return v
}

func hung() crash.Verdict {
	v := passing()
	v.Exercise = "outbox/relays"
	v.Verdict, v.Score = crash.Fail, 0.8
	for i, p := range v.Points {
		if p.Fault == "cut" && strings.HasPrefix(p.At, "p1.amqp") {
			v.Points[i].Outcome = crash.Hung
			v.Points[i].Detail = "nothing happened for 3 s; 2 events were still waiting"
		}
	}
	v.Failure = &crash.Failure{
		At: "p3.pg1>5", Message: "COMMIT", Fault: "cut",
		Detail: "Two seconds after its connection to PostgreSQL broke, the process had neither returned nor gone on. Events 1 to 3 were still waiting.",
		Hints:  []string{"What does your program wait for, and who will tell it that nobody is there any more?"},
		Replay: "crashcourse replay outbox/relay --seed 7919 --schedule 'cut@p3.pg1>5'",
		Trace:  three(),
	}
	return v
}

func notCompiled() crash.Verdict {
	return crash.Verdict{
		Version: 1, Exercise: "outbox/relay", Verdict: crash.Fail,
		Error: "The answer does not compile.\n./answer.go:14:9: undefined: tx\n./answer.go:15:2: declared and not used: rows",
	}
}

func unjudged() crash.Verdict {
	return crash.Verdict{
		Version: 1, Exercise: "outbox/place", Verdict: crash.Unjudged, DurationMS: 2100,
		Error: "RabbitMQ at 127.0.0.1:5672 does not answer: connection refused. Run `crashcourse doctor` to see why.",
	}
}

// huge is a failing verdict of a chatty answer: thousands of messages, hundreds
// of points, tables of thousands of rows.
func huge() crash.Verdict {
	v := failing()
	t := newTape()
	t.setUp(1)
	for i := 1; i <= 2500; i++ {
		t.query(1, "BEGIN", wire.NoEffect)
		t.query(1, fmt.Sprintf("UPDATE outbox_%d", i), wire.Write)
		if i == 1700 {
			t.send(1, wire.PG, "COMMIT", wire.Commit).Fault = "kill"
			break
		}
		t.query(1, "COMMIT", wire.Commit)
		t.publish(1, i)
		t.confirm(1, i)
	}
	for i := range 300 {
		t.query(2, fmt.Sprintf("SELECT outbox_%d", i), wire.NoEffect)
	}
	t.trace.Dropped = 12345
	v.Golden, v.Failure.Trace = &t.trace, &t.trace
	v.Failure.At, v.Failure.Message = "p1.pg1>5100", "COMMIT"
	v.Points = nil
	for i := 1; i <= 700; i++ {
		for _, f := range faultOrder {
			p := crash.PointResult{At: fmt.Sprintf("p1.pg1>%d", i), Message: fmt.Sprintf("UPDATE outbox_%d", i), Fault: f, Outcome: crash.Held}
			if i%100 == 0 {
				p.Outcome, p.Violation, p.Detail = crash.Violated, "no-lost-event", strings.Repeat("lost ", 500)
			}
			v.Points = append(v.Points, p)
		}
	}
	big := crash.Table{Name: "outbox", When: "at the crash"}
	for c := range 30 {
		big.Columns = append(big.Columns, fmt.Sprintf("column_%d", c))
	}
	for r := range 4000 {
		var row []string
		for c := range 30 {
			row = append(row, fmt.Sprintf("value %d of %d", c, r))
		}
		big.Rows = append(big.Rows, row)
	}
	big.Marks = []int{3000, 3999}
	v.Failure.Tables = []crash.Table{big, big}
	v.Output = strings.Repeat("spinning, spinning, spinning\n", 200000)
	return v
}

const attack = `<script>alert(1)</script><img src=x onerror="alert(1)">' onmouseover='alert(1)' "--></style></svg></title></details>{{.}} javascript:alert(1)` +
	"\x1b[2J\x1b]0;owned\x07\u202eevil\u2066\x00\xff\r\n\u2028 العربية עברית " + "Z\u0300\u0301\u0302\u0303\u0304\u0305\u0306" + " 日本語 👩‍👩‍👧"

// hostile puts an attack into every text of a verdict, and a name of 10 KB.
func hostile() crash.Verdict {
	long := strings.Repeat("N&'\"<", 2000)
	t := newTape()
	t.send(1, wire.PG, attack, wire.Write).Detail = attack
	t.send(1, wire.PG, long, wire.Commit).Detail = long
	m := t.send(1, "\"><script>", attack, wire.Publish)
	m.Fault, m.MessageID = attack, attack
	t.publish(1, 1).Fault = "kill"
	t.send(2, wire.AMQP, attack, wire.Publish)
	t.send(-3, wire.AMQP, "", wire.Effect(attack))
	point := crash.PointResult{At: attack, Message: attack, Fault: attack, Outcome: crash.Violated, Violation: attack, Detail: attack, Then: attack}
	odd := crash.PointResult{At: long, Message: long, Fault: long, Outcome: crash.Outcome(attack), Detail: long}
	table := crash.Table{
		Name: attack, When: attack, Columns: []string{attack, long, ""},
		Rows: [][]string{{attack}, nil, {long, long, long, long}, {"\u202e" + attack, "", ""}}, Marks: []int{0, 99, -1},
	}
	return crash.Verdict{
		Version: 1, Exercise: attack, Verdict: crash.Fail, Mode: attack, Seed: 1<<64 - 1, DurationMS: 1, Runs: 1,
		Invariants: []crash.InvariantResult{{Name: attack, Says: attack}, {Name: long, Says: long, Held: true}},
		Points:     []crash.PointResult{point, odd, {At: "p1.pg1>1", Message: attack, Fault: "kill", Outcome: crash.Held}, {Fault: attack, Outcome: crash.Hung}},
		Error:      attack + "\n" + long, Answer: attack, Judge: attack, Notes: []string{attack, long, ""}, Output: attack + "\n" + long,
		Failure: &crash.Failure{
			Invariant: attack, At: attack, Message: attack, Fault: attack, Detail: attack, Story: []string{attack, long},
			Tables: []crash.Table{table, {}}, Expected: attack, Hints: []string{attack, long, attack}, Replay: attack, Trace: &t.trace,
		},
		Golden: &t.trace,
	}
}

// samples are the verdicts that the tests draw.
func samples() map[string]crash.Verdict {
	return map[string]crash.Verdict{
		"pass": passing(), "lost-event": failing(), "hung": hung(), "not-compiled": notCompiled(),
		"unjudged": unjudged(), "huge": huge(), "hostile": hostile(), "empty": {},
	}
}

// silent is a relay without confirms, whose publishes vanish on the way.
func silent() *wire.Trace {
	t := newTape()
	t.send(1, wire.AMQP, "channel.open", wire.NoEffect)
	t.back(1, wire.AMQP, "channel.open-ok", wire.NoEffect)
	t.send(1, wire.PG, "INSERT outbox", wire.Write)
	t.send(1, wire.PG, "sync commits INSERT outbox", wire.Commit).Type = "Sync"
	t.back(1, wire.PG, "INSERT outbox done", wire.Done)
	for i := range 3 {
		m := t.publish(1, 0)
		if i == 1 {
			m.Fault = "blackhole"
		}
	}
	t.query(1, "UPDATE outbox", wire.Commit)
	t.send(1, wire.PG, "UPDATE outbox", wire.Write).Fault = "fail"
	t.back(1, wire.PG, "ERROR 40001 could not serialize access", wire.NoEffect).Type = "ErrorResponse"
	t.query(2, "SELECT outbox", wire.NoEffect)
	return &t.trace
}

// calls is a program that charges, and tells another service. The answer to its
// charge is lost.
func calls() *wire.Trace {
	t := newTape()
	ask := func(process int, service, name string, effect wire.Effect) *wire.Message {
		m := t.send(process, wire.HTTP, name, effect)
		m.Type, m.Service, m.Detail = "request", service, "Idempotency-Key: order-1\n{\"cents\":4200}"
		return m
	}
	answer := func(process int, service, name string, status int, effect wire.Effect) *wire.Message {
		m := t.back(process, wire.HTTP, fmt.Sprint(status, " ", name), effect)
		m.Type, m.Service, m.Status = "response", service, status
		return m
	}
	t.query(1, "BEGIN", wire.NoEffect)
	t.query(1, "INSERT orders", wire.Write)
	ask(1, "payments", "POST /charges", wire.Call)
	answer(1, "payments", "POST /charges", 201, wire.Done).Fault = "kill"
	ask(2, "payments", "POST /charges", wire.Call)
	answer(2, "payments", "POST /charges", 201, wire.Done)
	t.query(2, "INSERT orders", wire.Write)
	t.setUp(2)
	t.publish(2, 1)
	t.confirm(2, 1)
	ask(2, "stock", "GET /stock/7", wire.NoEffect)
	answer(2, "stock", "GET /stock/7", 200, wire.NoEffect)
	return &t.trace
}
