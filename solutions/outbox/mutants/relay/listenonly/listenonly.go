// Mutant: only rows whose notification arrives are published, so those committed while nobody listened never are.
// Breaks: all-work-done
// Shown by: kill

package listenonly

import (
	"context"
	"errors"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relay publishes every row of outbox that it is notified of until ctx ends.
func Relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	err := relay(ctx, db, conn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func relay(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	listener, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer listener.Close(ctx)
	if _, err := listener.Exec(ctx, `
		CREATE OR REPLACE FUNCTION outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM pg_notify('outbox', NEW.message_id::text);
			RETURN NULL;
		END $$;
		CREATE OR REPLACE TRIGGER outbox_notify AFTER INSERT ON outbox
		FOR EACH ROW EXECUTE FUNCTION outbox_notify();
		LISTEN outbox`); err != nil {
		return err
	}
	for {
		n, err := listener.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		id := n.Payload
		var key string
		var payload []byte
		if err := db.QueryRow(ctx, `SELECT type, payload FROM outbox WHERE message_id = $1`, id).Scan(&key, &payload); err != nil {
			return err
		}
		for delivered := false; !delivered; {
			confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "events", key, true, false, amqp.Publishing{
				MessageId:    id,
				ContentType:  "application/json",
				DeliveryMode: amqp.Persistent,
				Body:         payload,
			})
			if err != nil {
				return err
			}
			if delivered, err = confirm.WaitContext(ctx); err != nil {
				return err
			}
			if len(returns) > 0 {
				<-returns
				delivered = false
			}
			if ch.IsClosed() {
				return errors.New("the channel was closed")
			}
		}
		if _, err := db.Exec(ctx, `UPDATE outbox SET published_at = now() WHERE message_id = $1`, id); err != nil {
			return err
		}
	}
}
