package main

import (
	"fmt"
	"strings"
	"time"

	"crashcourse/bench/internal/figures"
)

// of returns a figure of all results of a relay.
func (b *bench) of(what, relay string, size int, figure func(result) float64) (figures []float64) {
	for _, r := range b.results {
		if r.What == what && r.Relay == relay && r.Size == size {
			figures = append(figures, figure(r))
		}
	}
	return figures
}

func (r relay) title() string {
	if r.remark == "" {
		return r.name
	}
	return r.name + " (" + r.remark + ")"
}

func (b *bench) printThroughput(n int) {
	fmt.Printf("### Throughput out of a backlog of %d events\n\nMedian of %d runs, lowest and highest in brackets. The shares are taken run by run.\n\n", n, b.runs)
	for _, size := range []int{256, 4096} {
		rate := func(r result) float64 { return r.Rate }
		ceiling := b.of("throughput", "publish only", size, rate)
		peer := b.of("throughput", "Watermill", size, rate)
		fmt.Printf("| %d-byte payloads | events/s | of the ceiling | times Watermill |\n|---|---|---|---|\n", size)
		for _, r := range b.chosen() {
			own := b.of("throughput", r.name, size, rate)
			fmt.Printf("| %s | %s | %s | %s |\n", r.title(), figures.Of(own).Text("%.0f"),
				figures.Ratios(own, ceiling, 100).Text("%.0f %%"), figures.Ratios(own, peer, 1).Text("%.1f"))
		}
		fmt.Println()
	}
}

func (b *bench) printLatency(length time.Duration) {
	fmt.Printf("### Latency from commit to delivery at %d events/s, 256 bytes\n\nMedian of %d runs of %v, lowest and highest in brackets.\n\n", steadyRate, b.runs, length)
	fmt.Print("| | p50 ms | p99 ms | longest ms |\n|---|---|---|---|\n")
	for _, r := range b.chosen() {
		if r.ceiling {
			continue
		}
		fmt.Printf("| %s |", r.title())
		for _, figure := range []func(result) float64{
			func(r result) float64 { return r.P50 }, func(r result) float64 { return r.P99 }, func(r result) float64 { return r.Max },
		} {
			fmt.Printf(" %s |", figures.Of(b.of("latency", r.name, 256, figure)).Text("%.1f"))
		}
		fmt.Println()
	}
	fmt.Println()
}

func (b *bench) printFaults() {
	fmt.Printf("### Faults at %d events/s\n\nSum of %d runs.\n\n", steadyRate, b.runs)
	fmt.Print("| fault | | times | events | lost | delivered twice | out of order |\n|---|---|---|---|---|---|---|\n")
	for _, fault := range []string{"kill -9", "no queue bound"} {
		for _, r := range b.chosen() {
			var sum result
			for _, one := range b.results {
				if one.What == "faults" && one.Relay == r.name && one.Fault == fault {
					sum.Faults += one.Faults
					sum.Sent += one.Sent
					sum.Lost += one.Lost
					sum.Twice += one.Twice
					sum.Disorder += one.Disorder
				}
			}
			if r.ceiling {
				continue
			}
			fmt.Println(strings.Join([]string{"| " + fault, r.title(), fmt.Sprint(sum.Faults), fmt.Sprint(sum.Sent), fmt.Sprint(sum.Lost), fmt.Sprint(sum.Twice), fmt.Sprint(sum.Disorder) + " |"}, " | "))
		}
	}
	fmt.Println()
}
