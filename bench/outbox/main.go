// Outbox measures the outbox relays of this repository beside what one would take
// instead: Watermill's forwarder. All publish over the same broker out of the
// same database, in runs that alternate, each relay as a process of its own.
//
//	go -C bench run ./outbox [-short] [-runs N] [-only REGEXP] [-json FILE]
//
// It is a module of its own, so that the course does not depend on Watermill.
// It takes the servers from the environment (DATABASE_URL, AMQP_URL,
// AMQP_MANAGEMENT_URL), or those that `crashcourse up` has started.
//
// Four things are measured, and printed as Markdown tables:
//
//   - Throughput: events a second out of a backlog, until all are in the queue
//     and marked. The ceiling is a program that does nothing but publish, with
//     1,000 unconfirmed messages at a time.
//   - Latency: from the return of COMMIT to the delivery to a consumer, at a
//     steady 500 events a second, one a transaction.
//   - Faults: how many events are lost, delivered twice, or delivered out of
//     their aggregate's order, when the relay is killed (kill -9) again and
//     again, and when no queue is bound for a while.
//   - Wake: what it costs those who commit that the relay is told by NOTIFY.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

func main() {
	if name := os.Getenv(roleEnv); name != "" {
		if err := play(name); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var b bench
	var out string
	flag.BoolVar(&b.short, "short", false, "fewer events and two runs: a look, not a measurement")
	flag.IntVar(&b.runs, "runs", 0, "how often each relay is measured (default 3, or 2 with -short)")
	only := flag.String("only", ".", "measure only relays whose name matches this")
	what := flag.String("what", ".", "measure only what matches this: throughput, latency, faults, wake")
	flag.StringVar(&out, "json", "", "write every single result to this file as well")
	flag.Parse()
	if b.runs == 0 {
		b.runs = 3
		if b.short {
			b.runs = 2
		}
	}
	var err error
	if b.only, err = regexp.Compile(*only); err == nil {
		b.what, err = regexp.Compile(*what)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(64)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err = b.run(ctx)
	if out != "" {
		text, _ := json.MarshalIndent(b.results, "", "  ")
		err = errors.Join(err, os.WriteFile(out, text, 0o644))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what to measure, and what was.
type bench struct {
	short      bool
	runs       int
	only, what *regexp.Regexp
	results    []result
}

// result is one run of one relay.
type result struct {
	What     string  `json:"what"`
	Relay    string  `json:"relay"`
	Size     int     `json:"payload_bytes"`
	Run      int     `json:"run"`
	Rate     float64 `json:"events_per_second,omitempty"`
	P50      float64 `json:"p50_ms,omitempty"`
	P99      float64 `json:"p99_ms,omitempty"`
	Max      float64 `json:"max_ms,omitempty"`
	Fault    string  `json:"fault,omitempty"`
	Sent     int     `json:"sent,omitempty"`
	Faults   int     `json:"faults,omitempty"`
	Lost     int     `json:"lost"`
	Twice    int     `json:"duplicated"`
	Disorder int     `json:"reordered"`
}

func (b *bench) run(ctx context.Context) error {
	fmt.Printf("%s, %d processors, %s\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version())
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"throughput", b.throughput}, {"latency", b.latency}, {"faults", b.faults}, {"wake", b.wake}} {
		if !b.what.MatchString(part.name) {
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// chosen returns the relays to measure, in the order of the table.
func (b *bench) chosen() (chosen []relay) {
	for _, r := range relays {
		if b.only.MatchString(r.name) || r.ceiling {
			chosen = append(chosen, r)
		}
	}
	return chosen
}

// note tells how it goes, apart from the tables.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
