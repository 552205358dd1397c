package breaker

import "testing"

func TestGuard(t *testing.T) { CheckGuard(t, Guard) }

func TestFallback(t *testing.T) { CheckFallback(t, Fallback) }

func TestProbe(t *testing.T) { CheckProbe(t, Probe) }
