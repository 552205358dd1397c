package wire_test

import (
	"context"
	"fmt"
	"log"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/wire"
)

// Record what a process says to its servers.
func Example() {
	proxy, lane := open(wire.Config{})
	defer proxy.Close()

	ctx := context.Background()
	db := connect(lane)
	must(db.Exec(ctx, "CREATE TEMP TABLE orders (id int)"))
	check(pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO orders VALUES ($1)", 1)
		return err
	}))

	for _, m := range proxy.Trace().Messages {
		if m.Step {
			fmt.Println(m)
		}
	}
	// Output:
	// p1.pg1>1 CREATE TABLE orders
	// p1.pg1<1 CREATE TABLE orders done
	// p1.pg1>2 BEGIN
	// p1.pg1<2 BEGIN done
	// p1.pg1>3 INSERT orders
	// p1.pg1<3 INSERT orders done
	// p1.pg1>4 COMMIT
	// p1.pg1<4 COMMIT done
}

// Kill a program between its COMMIT and its publish, and look at what is left.
// Without an outbox the event is lost.
func Example_crash() {
	proxy, lane := open(wire.Config{
		Decide: func(m *wire.Message) wire.Action {
			if m.Effect == wire.Publish {
				return wire.Action{Kind: wire.Freeze}
			}
			return wire.Action{}
		},
	})
	defer proxy.Close()

	direct := connect(nil)
	ctx := context.Background()
	must(direct.Exec(ctx, "DROP TABLE IF EXISTS crash_orders; CREATE TABLE crash_orders (id int)"))

	// The program. It believes that all is well.
	must(connect(lane).Exec(ctx, "INSERT INTO crash_orders VALUES (1)"))
	ch := channel(lane)
	q, err := ch.QueueDeclare("crash_events", true, false, false, false, nil)
	check(err)
	check(ch.Publish("", q.Name, true, false, amqp.Publishing{Body: []byte("order 1 placed")}))

	check(lane.Close(ctx))
	var rows int
	check(direct.QueryRow(ctx, "SELECT count(*) FROM crash_orders").Scan(&rows))
	q, err = channel(nil).QueueDeclarePassive(q.Name, true, false, false, false, nil)
	check(err)
	fmt.Println("orders:", rows, "events:", q.Messages)
	// Output:
	// orders: 1 events: 0
}

// Break the connection after the server has committed and before the program
// knows.
func Example_ambiguousCommit() {
	proxy, lane := open(wire.Config{
		Decide: func(m *wire.Message) wire.Action {
			if m.Name == "COMMIT done" {
				return wire.Action{Kind: wire.Cut}
			}
			return wire.Action{}
		},
	})
	defer proxy.Close()

	direct := connect(nil)
	ctx := context.Background()
	must(direct.Exec(ctx, "DROP TABLE IF EXISTS ambiguous; CREATE TABLE ambiguous (id int)"))
	db := connect(lane)
	must(db.Exec(ctx, "BEGIN"))
	must(db.Exec(ctx, "INSERT INTO ambiguous VALUES (1)"))
	_, err := db.Exec(ctx, "COMMIT")

	check(lane.Close(ctx))
	var rows int
	check(direct.QueryRow(ctx, "SELECT count(*) FROM ambiguous").Scan(&rows))
	fmt.Println("commit failed:", err != nil)
	fmt.Println("rows:", rows)
	// Output:
	// commit failed: true
	// rows: 1
}

// Step through a program: hold each of its statements until told to go on.
func ExampleAction_hold() {
	held := make(chan string)
	step := make(chan wire.Action)
	proxy, lane := open(wire.Config{
		Decide: func(m *wire.Message) wire.Action {
			if !m.Step || m.Dir != wire.ToServer {
				return wire.Action{}
			}
			go func(name string) { held <- name }(m.Name) // Decide must not block
			return wire.Action{Kind: wire.Hold, Until: step}
		},
	})
	defer proxy.Close()

	finished := make(chan error)
	go func() {
		ctx := context.Background()
		finished <- pgx.BeginFunc(ctx, connect(lane), func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "LISTEN news")
			return err
		})
	}()
	for range 3 {
		fmt.Println("next:", <-held)
		step <- wire.Action{} // or Freeze, or Cut, …
	}
	fmt.Println("error:", <-finished)
	// Output:
	// next: BEGIN
	// next: LISTEN news
	// next: COMMIT
	// error: <nil>
}

// Have the broker refuse a message.
func ExampleActionKind_nack() {
	proxy, lane := open(wire.Config{
		Decide: func(m *wire.Message) wire.Action {
			if m.Effect == wire.Publish && m.DeliveryTag == 2 {
				return wire.Action{Kind: wire.Nack}
			}
			return wire.Action{}
		},
	})
	defer proxy.Close()

	ch := channel(lane)
	check(ch.Confirm(false))
	for i := range 3 {
		dc, err := ch.PublishWithDeferredConfirm("amq.fanout", "", false, false, amqp.Publishing{MessageId: fmt.Sprint(i + 1)})
		check(err)
		fmt.Printf("publish %d acked: %v\n", i+1, dc.Wait())
	}
	// Output:
	// publish 1 acked: true
	// publish 2 acked: false
	// publish 3 acked: true
}

func ExampleParsePoint() {
	p, err := wire.ParsePoint("p2.amqp1<7")
	fmt.Println(p.Process, p.Protocol, p.Conn, p.Dir, p.Index, err)
	// Output:
	// 2 amqp 1 < 7 <nil>
}

// open returns a proxy before the servers, and a lane for the program.
func open(cfg wire.Config) (*wire.Proxy, *wire.Lane) {
	pgURL, amqpURL := wire.URLsForTest()
	cfg.Postgres, cfg.AMQP = parse(pgURL).Host, parse(amqpURL).Host
	proxy, err := wire.New(cfg)
	check(err)
	lane, err := proxy.Lane()
	check(err)
	return proxy, lane
}

// connect connects to PostgreSQL, through the lane if there is one.
func connect(lane *wire.Lane) *pgx.Conn {
	pgURL, _ := wire.URLsForTest()
	u := parse(pgURL)
	if lane != nil {
		u.Host = lane.Postgres()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, u.String())
	check(err)
	return c
}

// channel opens an AMQP channel, through the lane if there is one.
func channel(lane *wire.Lane) *amqp.Channel {
	_, amqpURL := wire.URLsForTest()
	u := parse(amqpURL)
	if lane != nil {
		u.Host = lane.AMQP()
	}
	c, err := amqp.Dial(u.String())
	check(err)
	ch, err := c.Channel()
	check(err)
	return ch
}

func parse(s string) *url.URL {
	u, err := url.Parse(s)
	check(err)
	return u
}

func must(_ any, err error) { check(err) }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
