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
