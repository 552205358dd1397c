package lab_test

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/lab"
)

// placeThenPublish stores an order, then tells the others: a dual write.
func placeThenPublish(ctx context.Context, db *pgxpool.Pool, conn *amqp.Connection) error {
	if _, err := db.Exec(ctx, `INSERT INTO orders VALUES ('A', 'Ada')`); err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return ch.PublishWithContext(ctx, lab.Exchange, "order.placed", false, false,
		amqp.Publishing{MessageId: "a-1", Body: []byte(`{"order": "A", "n": 1}`)})
}

// A process is killed between its two writes. The row is there, the message is
// not.
func ExampleLab_Run() {
	l := lab.Open("example_run")
	l.Fresh()
	l.SQL(`CREATE TABLE orders (id text PRIMARY KEY, customer text)`)
	l.Queue("shipping", "order.#")
	l.Run(placeThenPublish, lab.Kill("basic.publish"))
	l.Table("SELECT * FROM orders")
	l.Peek("shipping")
	// Output:
	// A new database in PostgreSQL and a new virtual host in RabbitMQ, both empty.
	// PostgreSQL                              process 1                                 RabbitMQ
	//   ◆<━━━━━━━━━━━ INSERT orders ✓ ━━━━━━━━━━━━│                                          │
	//   │                                         │───────────── channel.open ✓ ────────────>│
	//   │                                         │── basic.publish order.placed ───✗        │
	// ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ ✗ process 1 killed at p1.amqp1>2 ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
	// ◆ committed   ─✗ never arrived   ✓ answered
	// The process was killed.
	// SELECT * FROM orders
	// id  customer
	// A   Ada
	// queue shipping: 0 messages
	//   routing key  message id  body
	// (none)
}
