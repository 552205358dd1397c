// Package outbox publishes events without losing any: an event is stored in the
// same transaction as the change that it tells of, and a relay publishes what
// was committed.
package outbox
