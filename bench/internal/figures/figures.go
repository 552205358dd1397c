// Package figures sums up what several runs measured.
package figures

import (
	"fmt"
	"slices"
)

// Spread is the median of some figures, with the lowest and the highest.
type Spread struct{ Low, Median, High float64 }

// Of sums up figures, which stay as they are. Of none it is zero.
func Of(figures []float64) (s Spread) {
	if len(figures) == 0 {
		return s
	}
	sorted := slices.Sorted(slices.Values(figures))
	return Spread{sorted[0], sorted[len(sorted)/2], sorted[len(sorted)-1]}
}

// Text writes each figure by format: "12 (9–15)".
func (s Spread) Text(format string) string {
	return fmt.Sprintf(format+" ("+format+"–"+format+")", s.Median, s.Low, s.High)
}

// Ratios divides run by run, and multiplies by factor.
func Ratios(a, b []float64, factor float64) Spread {
	var all []float64
	for i := range min(len(a), len(b)) {
		all = append(all, factor*a[i]/b[i])
	}
	return Of(all)
}
