package breaker

import "testing"

func TestGuard(t *testing.T) { CheckGuard(t, Guard) }
