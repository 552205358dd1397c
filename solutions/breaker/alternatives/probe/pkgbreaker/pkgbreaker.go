// Package pkgbreaker is an alternative answer to breaker/probe: the course's own
// package.
package pkgbreaker

import (
	"context"
	"errors"

	contract "crashcourse/exercises/breaker"
	"crashcourse/pkg/breaker"
)

// Probe calls charge through a breaker.Breaker.
func Probe(s contract.Settings, charge func(context.Context, contract.Payment) error) func(context.Context, contract.Payment) error {
	b, err := breaker.New(breaker.Options{
		Name: "payments", Timeout: s.Timeout, ErrorThresholdPercentage: s.FailureRate, VolumeThreshold: s.Volume,
		RollingCountTimeout: s.Window, ResetTimeout: s.Reset, Probes: s.Probes,
		IsSuccessful: func(err error) bool { return errors.Is(err, contract.ErrDeclined) },
	})
	return func(ctx context.Context, p contract.Payment) error {
		if err != nil {
			return err
		}
		err := b.Do(ctx, func(ctx context.Context) error { return charge(ctx, p) })
		if errors.Is(err, breaker.ErrOpen) {
			return contract.ErrOpen
		}
		return err
	}
}
