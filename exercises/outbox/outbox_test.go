package outbox

import "testing"

func TestPlace(t *testing.T)  { CheckPlace(t, Place) }
func TestRelay(t *testing.T)  { CheckRelay(t, Relay) }
func TestRelays(t *testing.T) { CheckRelays(t, Relays) }
