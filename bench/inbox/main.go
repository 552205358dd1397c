// Inbox measures package inbox beside what one would take instead: Watermill's
// router with its deduplicating middleware, and consumers written by hand. All
// read the same queue and book into the same database, in runs that alternate,
// each consumer as a process of its own.
//
//	go -C bench run ./inbox [-short] [-runs N] [-only REGEXP]
//
// It takes the servers from the environment (DATABASE_URL, AMQP_URL,
// AMQP_MANAGEMENT_URL), or those that `crashcourse up` has started, and prints
// Markdown tables:
//
//   - Throughput: messages a second out of a backlog, until all are settled.
//   - Latency: from the publish to the end of the transaction, at a steady 100
//     messages a second.
//   - Faults: how many messages had their effect twice or not at all, when each
//     is published twice and two processes consume that are killed again and
//     again.
package main

import (
	"context"
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
	flag.BoolVar(&b.short, "short", false, "fewer messages and one run: a look, not a measurement")
	flag.IntVar(&b.runs, "runs", 0, "how often each consumer is measured (default 5, or 1 with -short)")
	only := flag.String("only", ".", "measure only consumers whose name matches this")
	flag.Parse()
	if b.runs == 0 {
		b.runs = 5
		if b.short {
			b.runs = 1
		}
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(64)
	}
	for _, c := range consumers {
		if match.MatchString(c.name) {
			b.chosen = append(b.chosen, c)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Printf("%s, %d processors, %s\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version())
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what to measure, and what was.
type bench struct {
	short   bool
	runs    int
	chosen  []consumer
	results []result
}

// result is one run of one consumer.
type result struct {
	part, consumer string
	rate           float64 // messages a second
	p50, p99       float64 // milliseconds
	sent           int
	twice, lost    int
	kills          int
}

func (b *bench) run(ctx context.Context) error {
	for run := range b.runs {
		for _, part := range []struct {
			name    string
			measure func(context.Context, consumer) (result, error)
		}{{"throughput", b.throughput}, {"latency", b.latency}, {"faults", b.faults}} {
			for _, c := range b.chosen {
				r, err := part.measure(ctx, c)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", part.name, c.name, err)
				}
				r.part, r.consumer = part.name, c.name
				fmt.Fprintf(os.Stderr, "run %d of %d, %s, %s: %.0f/s, p50 %.1f ms, p99 %.1f ms, of %d: %d twice, %d lost, %d kills\n",
					run+1, b.runs, part.name, c.name, r.rate, r.p50, r.p99, r.sent, r.twice, r.lost, r.kills)
				b.results = append(b.results, r)
			}
		}
	}
	b.print()
	return nil
}
