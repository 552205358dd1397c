package breaker

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Options are the options of a [Breaker]. Every field may be left zero.
//
// Where opossum, the library for Node.js, has the same option, it has the same
// name here:
//
//	Options                    opossum                    gobreaker/v2
//	Timeout                    timeout                    none
//	ErrorThresholdPercentage   errorThresholdPercentage   ReadyToTrip
//	VolumeThreshold            volumeThreshold            ReadyToTrip
//	ResetTimeout               resetTimeout               Timeout
//	RollingCountTimeout        rollingCountTimeout        Interval
//	RollingCountBuckets        rollingCountBuckets        BucketPeriod: the one divided by the other
//	Probes                     none, it is 1              MaxRequests
//	Bulkhead                   capacity                   none
//	IsSuccessful               errorFilter                IsSuccessful
//	OnStateChange              open, halfOpen, close      OnStateChange
//
// Beware of the two libraries' Timeout: here, as in opossum, it is a call's.
type Options struct {
	// Name is the dependency's, for logs and events. Empty: "breaker".
	Name string

	// Timeout bounds each call: the deadline inside of the breaker. A call that
	// takes longer has failed, and Do returns with [ErrTimeout], at once if the
	// function heeds its context, else 100 ms later. Zero: 3 s. Negative: no
	// deadline, and the function is called in the caller's goroutine. Then a probe
	// that hangs keeps the circuit half-open, rejecting, for as long as it hangs,
	// and one that calls runtime.Goexit for ever.
	Timeout time.Duration
	// ErrorThresholdPercentage is the share of failures among the calls that
	// ended within the rolling window, in percent, from which on the circuit
	// opens. It is reached at exactly this share too; opossum has to exceed it.
	// Zero: 50. At most 100.
	ErrorThresholdPercentage int
	// VolumeThreshold is how many calls must have ended within the rolling window
	// before the circuit may open. Zero: 5.
	VolumeThreshold int
	// ResetTimeout is how long the circuit stays open before it lets probes
	// through. Zero: 10 s.
	ResetTimeout time.Duration
	// RollingCountTimeout is how long the rolling window is, and
	// RollingCountBuckets how many steps it moves in: a call is forgotten after
	// at least RollingCountTimeout less one step, and at most RollingCountTimeout.
	// The length is rounded up to whole steps. VolumeThreshold calls must fit into
	// it also when each takes Timeout: a single caller needs more than the product
	// of the two. Zero: 10 s and 10.
	RollingCountTimeout time.Duration
	RollingCountBuckets int
	// Probes is how many calls are let through in half-open, and how many of them
	// must succeed for the circuit to close. One failure opens it again. Zero: 1.
	Probes int

	// Bulkhead, if set, bounds how many calls are under way at a time. What it
	// rejects, with [ErrFull], the breaker does not count. It may be shared by
	// several breakers.
	Bulkhead *Bulkhead

	// IsSuccessful says which errors mean that the dependency works: it has
	// understood, and declined. Nil: those marked by [Permanent]. It is not asked
	// about nil, nor about deadlines, panics and cancelled callers.
	IsSuccessful func(err error) bool
	// OnStateChange is told of each transition, in their order and one at a time,
	// by the goroutine of a call that has caused one, before Do returns. No lock
	// is held: it may use the breaker. Be quick, for it holds up that call. Nil:
	// nobody is told.
	OnStateChange func(Event)
	// Logger is told of transitions, and of calls that end after their deadline.
	// Nil: slog.Default().
	Logger *slog.Logger
}

// withDefaults checks o and fills in what is zero.
func (o Options) withDefaults() (Options, error) {
	o.Name = cmp.Or(o.Name, "breaker")
	o.Timeout = cmp.Or(o.Timeout, 3*time.Second)
	o.ErrorThresholdPercentage = cmp.Or(o.ErrorThresholdPercentage, 50)
	o.VolumeThreshold = cmp.Or(o.VolumeThreshold, 5)
	o.ResetTimeout = cmp.Or(o.ResetTimeout, 10*time.Second)
	o.RollingCountTimeout = cmp.Or(o.RollingCountTimeout, 10*time.Second)
	o.RollingCountBuckets = cmp.Or(o.RollingCountBuckets, 10)
	o.Probes = cmp.Or(o.Probes, 1)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	if o.IsSuccessful == nil {
		o.IsSuccessful = permanent
	}
	if o.ErrorThresholdPercentage < 1 || o.ErrorThresholdPercentage > 100 {
		return o, fmt.Errorf("breaker: Options.ErrorThresholdPercentage is %d; it must be between 1 and 100", o.ErrorThresholdPercentage)
	}
	if o.ResetTimeout < 0 || o.RollingCountTimeout < 0 {
		return o, errors.New("breaker: Options.ResetTimeout and RollingCountTimeout must not be negative")
	}
	const most = 1 << 20
	for name, n := range map[string]int{
		"VolumeThreshold": o.VolumeThreshold, "RollingCountBuckets": o.RollingCountBuckets, "Probes": o.Probes,
	} {
		if n < 1 || n > most {
			return o, fmt.Errorf("breaker: Options.%s is %d; it must be between 1 and %d", name, n, most)
		}
	}
	if o.RollingCountTimeout < time.Duration(o.RollingCountBuckets) {
		return o, fmt.Errorf("breaker: Options.RollingCountTimeout is %v, too short for %d buckets", o.RollingCountTimeout, o.RollingCountBuckets)
	}
	return o, nil
}
