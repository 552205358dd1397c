package exercise

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// ErrNotImplemented is what a starter answer returns.
var ErrNotImplemented = errors.New("not implemented yet: write your answer here")

// Handler runs the answer once, with the argument the judge sent.
type Handler func(ctx context.Context, p *Process, arg json.RawMessage) error

// Process is the answer's side of a judged process.
type Process struct{}

// Postgres returns a pool.
func (p *Process) Postgres(ctx context.Context) (*pgxpool.Pool, error) { return nil, nil }

// Broker returns a connection.
func (p *Process) Broker() (*amqp.Connection, error) { return nil, nil }

// Check judges.
func Check(t testing.TB, id string, h Handler) {}
