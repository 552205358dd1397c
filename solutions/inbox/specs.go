package inbox

import (
	"math/rand/v2"

	"crashcourse/pkg/crash"
)

const locked = "locked" // the variant in which somebody else has locked an account

func handleSpec() *crash.Spec {
	return &crash.Spec{
		ID:         "inbox/handle",
		Schema:     schema,
		Grants:     grants,
		Queues:     []string{queueName},
		Exchanges:  []string{deadName},
		Processes:  2,
		Rests:      true,
		Invariants: []crash.Invariant{effectOnce, noLostMessage},
		Faults:     []crash.Fault{crash.Kill, crash.Cut, crash.Blackhole, crash.FailStatement, crash.Shutdown, crash.Delay},
		Scenario: func(a *crash.Arena, rng *rand.Rand, _ string) (crash.Scenario, error) {
			s := newBooking(a, rng, 4)
			s.add(rng, 6)
			s.twist(rng)
			return s, nil
		},
	}
}

func consumeSpec() *crash.Spec {
	return &crash.Spec{
		ID:             "inbox/consume",
		Schema:         schema,
		Grants:         grants,
		Queues:         []string{queueName},
		Exchanges:      []string{deadName},
		Processes:      2,
		Rests:          true,
		Invariants:     []crash.Invariant{effectOnce, noWrongAck, noLostMessage, poisonParked, othersGoOn, acknowledged, stopsWhenAsked},
		Faults:         []crash.Fault{crash.Kill, crash.Cut, crash.Blackhole, crash.FailStatement, crash.Shutdown, crash.Delay},
		Variants:       []crash.Variant{{Name: locked, Says: "somebody else has locked the row of an account"}},
		StopsWhenAsked: stopsWhenAsked.Name,
		Scenario: func(a *crash.Arena, rng *rand.Rand, variant string) (crash.Scenario, error) {
			accounts, payments := 4, 6
			if variant == locked {
				accounts, payments = 7, 14 // two for each account: also for the one that is locked
			}
			s := newBooking(a, rng, accounts)
			s.add(rng, payments)
			s.twist(rng)
			s.poison(rng, 3)
			s.acks = true
			if variant == locked {
				s.lock = 1
			}
			return s, nil
		},
	}
}

func batchSpec() *crash.Spec {
	return &crash.Spec{
		ID:             "inbox/batch",
		Schema:         schema,
		Grants:         grants,
		Queues:         []string{queueName},
		Exchanges:      []string{deadName},
		Rests:          true,
		Invariants:     []crash.Invariant{effectOnce, noWrongAck, noLostMessage, poisonParked, orderPerKey, inBatches, acknowledged, stopsWhenAsked},
		Faults:         []crash.Fault{crash.Kill, crash.Cut, crash.Blackhole, crash.FailStatement, crash.Shutdown},
		StopsWhenAsked: stopsWhenAsked.Name,
		Scenario: func(a *crash.Arena, rng *rand.Rand, _ string) (crash.Scenario, error) {
			s := newBooking(a, rng, 5)
			s.add(rng, 60)
			s.twist(rng)
			s.poison(rng, 30)
			s.acks, s.inOrder, s.thrifty = true, true, true
			return s, nil
		},
	}
}
