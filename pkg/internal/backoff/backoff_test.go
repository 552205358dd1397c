package backoff

import (
	"testing"
	"time"
)

func TestWait(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: 100, 2: 200, 3: 400, 7: 5000, 1000: 5000} {
		for range 100 {
			if d := Wait(failures, 100, 5000); d < want/2 || d > want {
				t.Errorf("after %d failures: %d, want %d or up to one half less", failures, d, want)
			}
		}
	}
}

// The first wait times two to the number of failures is more than a Duration holds.
func TestWaitDoesNotOverflow(t *testing.T) {
	for failures := range 100 {
		if d := Wait(failures+1, time.Minute, time.Hour); d <= 0 || d > time.Hour {
			t.Errorf("after %d failures: %v", failures+1, d)
		}
	}
}

func TestFull(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: 100, 2: 200, 7: 5000, 1000: 5000} {
		low, high := want, time.Duration(0)
		for range 1000 {
			d := Full(failures, 100, 5000)
			low, high = min(low, d), max(high, d)
		}
		if low < 0 || low > want/4 || high > want || high < want*3/4 {
			t.Errorf("after %d failures: %d to %d, want anything from 0 to %d", failures, low, high, want)
		}
	}
}
