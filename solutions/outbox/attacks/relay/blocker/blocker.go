// Attack: a trigger refuses every further event, so that there is nothing more to publish.
// Wins if: work that the answer prevented counts as done.
package blocker

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/solutions/outbox/reference/relay"
)

// Relay publishes what is there, and keeps the rest from coming.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	if _, err := db.Exec(ctx, `
		CREATE OR REPLACE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN RAISE EXCEPTION 'no more orders today'; END $$;
		DROP TRIGGER IF EXISTS no_more ON outbox;`); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, `CREATE TRIGGER no_more BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION no_more()`); err != nil {
		return err
	}
	return relay.Relay(ctx, db, conn)
}
