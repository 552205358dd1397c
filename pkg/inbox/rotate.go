package inbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/internal/backoff"
	"crashcourse/pkg/postgres"
)

// generations is how many partitions inbox_messages has. One is written to, and
// each of the others was for a third of the retention or longer: what a new
// generation pushes out is older than the retention.
const generations = 4

// dueSQL tells which generation is the current one and whether it is over.
const dueSQL = `
SELECT current, coalesce(started_at + (SELECT CASE WHEN count(*) = count(retention) THEN max(retention) END FROM inbox_consumers) / 3 <= clock_timestamp(), false)
FROM inbox_generation`

// rotate begins a new generation whenever it is time to, until ctx ends.
func (c *Consumer) rotate(ctx context.Context) error {
	for failures := 0; backoff.Sleep(ctx, c.o.CleanInterval); {
		// While it waits for the transactions at work, no other can begin. So it
		// waits for a short time first, and longer the oftener it was in vain.
		done, err := c.rotateOnce(ctx, min(100*time.Millisecond<<min(failures, 20), c.o.Timeout))
		switch {
		case ctx.Err() != nil:
			return nil
		case postgres.SQLState(err) == "55P03": // lock_not_available
			failures++
			c.log.Debug("inbox: transactions are at work, a new generation waits", "failures", failures)
		case err != nil:
			// Not fatal: messages can be handled although old rows stay.
			failures++
			c.again(ctx, "begin a new generation of rows (the role needs TRUNCATE on the tables inbox_messages_0 to 3)", err, failures)
		default:
			failures = 0
			if done {
				c.log.Debug("inbox: a new generation of rows begins")
			}
		}
	}
	return nil
}

// rotateOnce empties the oldest generation and makes it the current one, if it is
// time to.
func (c *Consumer) rotateOnce(ctx context.Context, wait time.Duration) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout+wait)
	defer cancel()
	var current int
	var due bool
	if err := c.pool.QueryRow(ctx, dueSQL).Scan(&current, &due); err != nil {
		return false, fmt.Errorf("inbox: look at the generations: %w", err)
	}
	if !due {
		return false, nil
	}
	err = pgx.BeginTxFunc(ctx, c.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", strconv.FormatInt(wait.Milliseconds(), 10)); err != nil {
			return fmt.Errorf("inbox: bound the wait for a lock: %w", err)
		}
		// Whoever has written into the current generation holds this lock.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('inbox.generation'), 'inbox_messages'::regclass::oid::integer)"); err != nil {
			return fmt.Errorf("inbox: wait for the transactions at work: %w", err)
		}
		if err := tx.QueryRow(ctx, dueSQL).Scan(&current, &due); err != nil {
			return fmt.Errorf("inbox: look at the generations: %w", err)
		}
		if !due {
			return errNotDue
		}
		next := (current + 1) % generations
		if _, err := tx.Exec(ctx, "TRUNCATE inbox_messages_"+strconv.Itoa(next)); err != nil {
			return fmt.Errorf("inbox: empty the oldest generation: %w", err)
		}
		if _, err := tx.Exec(ctx, "UPDATE inbox_generation SET current = $1, started_at = clock_timestamp()", next); err != nil {
			return fmt.Errorf("inbox: begin a generation: %w", err)
		}
		return nil
	})
	if errors.Is(err, errNotDue) {
		return false, nil
	}
	return err == nil, err
}

// errNotDue tells that another consumer was faster.
var errNotDue = errors.New("inbox: no generation is over")
