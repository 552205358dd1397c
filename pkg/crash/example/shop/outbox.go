package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/outbox"
)

// placeWithOutbox stores an order together with its event, in one transaction. A
// relay publishes what has been committed.
func placeWithOutbox(ctx context.Context, g *errgroup.Group, pool *pgxpool.Pool) (placeFunc, error) {
	relay, err := outbox.NewRelay(pool, outbox.Options{Dial: dial, Exchange: exchange})
	if err != nil {
		return nil, err
	}
	g.Go(func() error { return relay.Run(ctx) })

	return func(ctx context.Context, o order) (isNew bool, err error) {
		err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if isNew, err = store(ctx, tx, o); err != nil || !isNew {
				return err
			}
			_, err := outbox.Enqueue(ctx, tx, outbox.Event{AggregateID: o.ID, Type: "order.placed", Payload: o})
			return err
		})
		return isNew, err
	}, nil
}
