package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// pingInterval is how often a connection that waits for notifications is tried.
const pingInterval = 5 * time.Second

// listen calls wake whenever new events may be there, until ctx ends. It makes
// its connection again when that is lost.
func (r *Relay) listen(ctx context.Context, wake func()) error {
	for failures := 0; ctx.Err() == nil; {
		err := r.listenOnce(ctx, func() {
			failures = 0
			wake()
		})
		if ctx.Err() != nil {
			return nil
		}
		if fatal(err) {
			return err
		}
		failures++
		r.again(ctx, "listen for notifications", err, failures)
	}
	return nil
}

func (r *Relay) listenOnce(ctx context.Context, wake func()) error {
	// Not one of the pool's: it would be missing there for ever.
	conn, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		// ctx has ended by now, as a rule.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN outbox"); err != nil {
		return fmt.Errorf("outbox: listen: %w", err)
	}
	wake() // for what was committed before
	for {
		short, cancel := context.WithTimeout(ctx, pingInterval)
		_, err := conn.WaitForNotification(short)
		cancel()
		switch {
		case err == nil:
			wake()
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			if err := r.ping(ctx, conn); err != nil {
				return err
			}
		default:
			return fmt.Errorf("outbox: wait for a notification: %w", err)
		}
	}
}

// ping finds out whether the connection is still there.
func (r *Relay) ping(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	if err := conn.Ping(ctx); err != nil {
		return fmt.Errorf("outbox: the connection that listens is lost: %w", err)
	}
	return nil
}

// connect makes a connection like those of the pool. Each change function may
// alter the settings.
func (r *Relay) connect(ctx context.Context, change ...func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	pool := r.pool.Config()
	config := pool.ConnConfig
	if pool.BeforeConnect != nil {
		if err := pool.BeforeConnect(ctx, config); err != nil {
			return nil, fmt.Errorf("outbox: connect to the database: %w", err)
		}
	}
	for _, c := range change {
		c(config)
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("outbox: connect to the database: %w", err)
	}
	return conn, nil
}
