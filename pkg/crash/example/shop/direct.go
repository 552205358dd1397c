package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// placeDirectly stores an order, then publishes its event and waits for the
// broker's confirm. Nothing happens between the two, except when something does.
func placeDirectly(ctx context.Context, g *errgroup.Group, pool *pgxpool.Pool) (placeFunc, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("open a channel to publish over: %w", err)
	}
	g.Go(func() error { // without the broker there is nothing to be done here
		defer conn.Close()
		select {
		case <-ctx.Done():
			return nil
		case err := <-ch.NotifyClose(make(chan *amqp.Error, 1)):
			return fmt.Errorf("the broker has gone: %w", err)
		}
	})

	var mu sync.Mutex // one publisher a channel
	publish := func(ctx context.Context, o order) error {
		body, err := json.Marshal(o)
		if err != nil {
			return fmt.Errorf("encode the event: %w", err)
		}
		mu.Lock()
		defer mu.Unlock()
		confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, "order.placed", false, false, amqp.Publishing{
			MessageId: o.ID, ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: body,
		})
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		acked, err := confirm.WaitContext(ctx)
		if err != nil {
			return fmt.Errorf("wait for the confirm: %w", err)
		}
		if !acked {
			return errors.New("the broker has not taken the event")
		}
		return nil
	}
	return func(ctx context.Context, o order) (bool, error) {
		isNew, err := store(ctx, pool, o)
		if err != nil || !isNew {
			return false, err
		}
		return true, publish(ctx, o)
	}, nil
}
