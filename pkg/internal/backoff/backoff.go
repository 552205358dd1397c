// Package backoff says how long to wait before something is tried again.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Wait returns how long to wait after so many failures in a row: low, doubled
// with each, at most high, less a random part of up to one half.
func Wait(failures int, low, high time.Duration) time.Duration {
	d := grown(failures, low, high)
	return d - rand.N(d/2+1)
}

// Full is Wait with full jitter: anything from 0 to low, doubled with each failure,
// at most high. It spreads those who have failed at the same time most.
func Full(failures int, low, high time.Duration) time.Duration {
	return rand.N(grown(failures, low, high) + 1)
}

func grown(failures int, low, high time.Duration) time.Duration {
	if shift := failures - 1; shift < 62 && low < high>>shift {
		return low << shift
	}
	return high
}

// Sleep waits for d, or until ctx ends, and reports whether it waited for d.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
