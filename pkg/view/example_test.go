package view_test

import (
	"fmt"
	"os"
	"strings"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/view"
	"crashcourse/pkg/wire"
)

// step is a message of a fabricated trace.
func step(protocol wire.Protocol, dir wire.Direction, index int, name string, effect wire.Effect) wire.Message {
	return wire.Message{
		Point: wire.Point{Process: 1, Protocol: protocol, Conn: 1, Dir: dir, Index: index},
		Step:  true, Name: name, Effect: effect,
	}
}

func crashed() *wire.Trace {
	t := &wire.Trace{Version: wire.TraceVersion, Messages: []wire.Message{
		step(wire.PG, wire.ToServer, 1, "BEGIN", wire.NoEffect),
		step(wire.PG, wire.ToClient, 1, "BEGIN done", wire.Done),
		step(wire.PG, wire.ToServer, 2, "UPDATE outbox", wire.Write),
		step(wire.PG, wire.ToClient, 2, "UPDATE outbox done", wire.Done),
		step(wire.PG, wire.ToServer, 3, "COMMIT", wire.Commit),
		step(wire.PG, wire.ToClient, 3, "COMMIT done", wire.Done),
		step(wire.AMQP, wire.ToServer, 1, "basic.publish order.placed", wire.Publish),
	}}
	t.Messages[6].Fault = "kill"
	return t
}

func verdict() crash.Verdict {
	return crash.Verdict{
		Version: 1, Exercise: "outbox/relay", Verdict: crash.Fail,
		Invariants: []crash.InvariantResult{{Name: "no-lost-event", Says: "Every event that was committed is published."}},
		Points: []crash.PointResult{
			{At: "p1.pg1>2", Message: "UPDATE outbox", Fault: "kill", Outcome: crash.Held},
			{At: "p1.pg1>3", Message: "COMMIT", Fault: "kill", Outcome: crash.Held},
			{At: "p1.pg1>3", Message: "COMMIT", Fault: "cut", Outcome: crash.Held},
			{At: "p1.amqp1>1", Message: "basic.publish order.placed", Fault: "kill", Outcome: crash.Violated, Violation: "no-lost-event"},
		},
		Failure: &crash.Failure{
			Invariant: "no-lost-event", At: "p1.amqp1>1", Message: "basic.publish order.placed", Fault: "kill",
			Detail: "event 1 is marked as published, and is in no queue",
			Tables: []crash.Table{{
				Name: "outbox", When: "at the end", Columns: []string{"event", "published_at", "in the queue"},
				Rows: [][]string{{"1", "12:00:01.204", "no"}, {"2", "12:00:01.377", "once"}}, Marks: []int{0},
			}},
			Hints:  []string{"What is already true in the database when the process dies?"},
			Replay: `crashcourse replay outbox/relay --seed 7 --at "kill@p1.amqp1>1"`,
			Trace:  crashed(),
		},
	}
}

// A verdict for a terminal.
func ExampleText() {
	if err := view.Text(os.Stdout, verdict(), view.TextOptions{}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// outbox/relay: FAIL — survived 3 of 4 points; no-lost-event broke
	//
	// At point p1.amqp1>1, after COMMIT and before basic.publish order.placed, the
	// process was killed.
	// Event 1 is marked as published, and is in no queue.
	//
	// no-lost-event: Every event that was committed is published.
	//
	// outbox, at the end
	//     event  published_at  in the queue
	//   ✗ 1      12:00:01.204  no
	//     2      12:00:01.377  once
	//
	// Hint
	//   What is already true in the database when the process dies?
	//
	// Replay it step by step
	//   crashcourse replay outbox/relay --seed 7 --at "kill@p1.amqp1>1"
	//
	// Invariants
	//   ✗ no-lost-event  Every event that was committed is published.
	//
	// Every point and fault
	//               before …                    kill  cut
	//   p1.pg1>2    UPDATE outbox                ✓     ·
	//   p1.pg1>3    COMMIT                       ✓     ✓
	//   p1.amqp1>1  basic.publish order.placed   ✗     ·
	//   ✗ broke   ✓ held   · not run
}

// The sequence diagram of a run that was killed.
func ExampleTraceText() {
	err := view.TraceText(os.Stdout, crashed(), view.TraceOptions{Width: 72, Broken: "no-lost-event"})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// PostgreSQL                     process 1                        RabbitMQ
	//   ║<────────── BEGIN ✓ ────────────│                                 │
	//   ║<╌╌╌╌╌╌ UPDATE outbox ✓ ╌╌╌╌╌╌╌╌│                                 │
	//   ◆<━━━━━━━━━━ COMMIT ✓ ━━━━━━━━━━━│                                 │
	//   │                                │─ basic.publish order.p… ─✗      │
	// ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ ✗ process 1 killed at p1.amqp1>1 ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
	// ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ ✗ at the end: no-lost-event broke ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
	// ║ ╌ not committed yet   ◆ committed   ─✗ never arrived   ✓ answered
}

// Only the matrix: where a program loses data.
func ExampleMatrixText() {
	if err := view.MatrixText(os.Stdout, verdict(), view.TextOptions{}); err != nil {
		fmt.Println(err)
	}
	// Output:
	//             before …                    kill  cut
	// p1.pg1>2    UPDATE outbox                ✓     ·
	// p1.pg1>3    COMMIT                       ✓     ✓
	// p1.amqp1>1  basic.publish order.placed   ✗     ·
	// ✗ broke   ✓ held   · not run
}

// A verdict for the text/html output of a notebook cell; in a notebook give it to
// gonbui.DisplayHTML.
func ExampleHTML() {
	fragment, err := view.HTML(verdict())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(fragment) <= view.MaxHTML, strings.Contains(fragment, "<script"))
	// Output: true false
}

// A verdict as a page of its own.
func ExampleDocument() {
	page, err := view.Document(verdict())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.SplitN(page, "\n", 2)[0])
	// Output: <!DOCTYPE html>
}

// A trace as a picture; in a notebook give it to gonbui.DisplaySVG.
func ExampleTraceSVG() {
	picture, err := view.TraceSVG(crashed(), view.TraceOptions{Title: "The relay dies before it publishes"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Contains(picture, "<title>The relay dies before it publishes</title>"))
	// Output: true
}
