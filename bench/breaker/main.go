// Breaker measures package breaker beside what one would take instead: gobreaker
// alone, and failsafe-go.
//
//	go -C bench run ./breaker [-short] [-runs N] [-only REGEXP]
//
// Two things are measured, and printed as Markdown tables:
//
//   - Guard: what a call through a circuit breaker costs that does nothing.
//   - Goodput: how many customers of a shop are answered in time while its bank
//     hangs, with and without a breaker.
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
	var b bench
	flag.BoolVar(&b.short, "short", false, "a look, not a measurement")
	flag.IntVar(&b.runs, "runs", 0, "how often each is measured (default 3, or 2 with -short)")
	only := flag.String("only", ".", "measure only breakers and protections whose name matches this")
	flag.Parse()
	if b.runs == 0 {
		b.runs = 3
		if b.short {
			b.runs = 2
		}
	}
	var err error
	if b.only, err = regexp.Compile(*only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(64)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Printf("%s, %d processors, %s\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), runtime.Version())
	for _, part := range []func(context.Context) error{b.guard, b.goodput} {
		if err := part(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
}

// bench is what to measure, and what was.
type bench struct {
	short   bool
	runs    int
	only    *regexp.Regexp
	results []result
}

// result is one run of one breaker or protection.
type result struct {
	what, name  string
	group       int // guard: goroutines; goodput: which third of the run
	nanoseconds float64
	allocations float64
	browsing    float64 // percent answered in time
	paying      float64
	calls       float64 // of the bank, a second
}

// of returns a figure of all runs.
func (b *bench) of(what, name string, group int, figure func(result) float64) (out []float64) {
	for _, r := range b.results {
		if r.what == what && r.name == name && r.group == group {
			out = append(out, figure(r))
		}
	}
	return out
}

// note tells how it goes, apart from the tables.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
