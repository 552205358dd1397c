package main

import (
	"fmt"

	"crashcourse/bench/internal/figures"
)

func (b *bench) of(part, consumer string, figure func(result) float64) (out []float64) {
	for _, r := range b.results {
		if r.part == part && r.consumer == consumer {
			out = append(out, figure(r))
		}
	}
	return out
}

func (b *bench) print() {
	rate := func(r result) float64 { return r.rate }
	fmt.Printf("### Throughput and latency\n\nMedian of %d runs, lowest and highest in brackets; the ratios are taken run by run.\n\n", b.runs)
	fmt.Print("| | messages/s | times one by one | p50 ms | p99 ms |\n|---|---|---|---|---|\n")
	single := b.of("throughput", consumers[0].name, rate)
	for _, c := range b.chosen {
		own := b.of("throughput", c.name, rate)
		fmt.Printf("| %s | %s | %s | %s | %s |\n", c.title(), figures.Of(own).Text("%.0f"), figures.Ratios(own, single, 1).Text("%.1f"),
			figures.Of(b.of("latency", c.name, func(r result) float64 { return r.p50 })).Text("%.1f"),
			figures.Of(b.of("latency", c.name, func(r result) float64 { return r.p99 })).Text("%.1f"))
	}
	fmt.Printf("\n### Faults\n\nEach message published twice, two processes, killed again and again. Sum of %d runs.\n\n", b.runs)
	fmt.Print("| | kills | messages | had their effect twice | had none |\n|---|---|---|---|---|\n")
	for _, c := range b.chosen {
		sum := func(figure func(result) int) (n int) {
			for _, r := range b.results {
				if r.part == "faults" && r.consumer == c.name {
					n += figure(r)
				}
			}
			return n
		}
		fmt.Printf("| %s | %d | %d | %d | %d |\n", c.title(), sum(func(r result) int { return r.kills }), sum(func(r result) int { return r.sent }),
			sum(func(r result) int { return r.twice }), sum(func(r result) int { return r.lost }))
	}
}

func (c consumer) title() string {
	if c.remark == "" {
		return c.name
	}
	return c.name + " (" + c.remark + ")"
}
