package wire

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// load is one way to use a server; it sends n small messages and returns when
// all have been answered.
type load func(n int)

// benchLane returns a lane for a proxied load, or nil for a direct one.
func benchLane(b *testing.B, proxied bool) *Lane {
	if !proxied {
		return nil
	}
	p := newProxy(b, Config{Decide: func(*Message) Action { return Action{} }, Observe: func(*Message) {}})
	return newLane(b, p)
}

// pgxRoundTrips runs one query after the other.
func pgxRoundTrips(b *testing.B, proxied bool) load {
	c := connectPG(b, benchLane(b, proxied))
	return func(n int) {
		for range n {
			var one int
			if err := c.QueryRow(context.Background(), "SELECT $1::int", 1).Scan(&one); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// pgxPool runs queries on four connections at once.
func pgxPool(b *testing.B, proxied bool) load {
	pool := poolPG(b, benchLane(b, proxied), func(c *pgxpool.Config) { c.MaxConns = 4 })
	return func(n int) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range n / 4 {
					var one int
					if err := pool.QueryRow(context.Background(), "SELECT $1::int", 1).Scan(&one); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// amqpWindow publishes with up to 100 confirms outstanding.
func amqpWindow(b *testing.B, proxied bool) load { return amqpPublisher(b, proxied, 100) }

// amqpRoundTrips publishes one message after the other, each confirmed.
func amqpRoundTrips(b *testing.B, proxied bool) load { return amqpPublisher(b, proxied, 1) }

func amqpPublisher(b *testing.B, proxied bool, outstanding int) load {
	queue := makeQueue(b)
	ch := channelOf(b, connectAMQP(b, benchLane(b, proxied)))
	if err := ch.Confirm(false); err != nil {
		b.Fatal(err)
	}
	body := []byte(`{"order_id":"00000000-0000-0000-0000-000000000000","total_cents":1299}`)
	return func(n int) {
		window := make([]*amqp.DeferredConfirmation, 0, outstanding)
		for range n {
			if len(window) == outstanding {
				window[0].Wait()
				window = append(window[:0], window[1:]...)
			}
			dc, err := ch.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{MessageId: "id", Body: body})
			if err != nil {
				b.Fatal(err)
			}
			window = append(window, dc)
		}
		for _, dc := range window {
			dc.Wait()
		}
	}
}

const perRound = 200

// bench runs one load, so many messages an iteration.
func bench(b *testing.B, make func(*testing.B, bool) load, proxied bool) {
	run := make(b, proxied)
	run(perRound)
	messages := 0
	for b.Loop() {
		run(perRound)
		messages += perRound
	}
	seconds := b.Elapsed().Seconds()
	b.ReportMetric(float64(messages)/seconds, "msgs/s")
	b.ReportMetric(seconds*1e6/float64(messages), "µs/msg")
	b.ReportMetric(0, "ns/op")
}

// compare runs the load direct and through the proxy in turns, so that what
// else the machine does hits both alike, and reports the medians.
func compare(b *testing.B, make func(*testing.B, bool) load) {
	direct, proxied := make(b, false), make(b, true)
	direct(perRound)
	proxied(perRound)
	var times [2][]float64
	for b.Loop() {
		for i, run := range []load{direct, proxied} {
			began := time.Now()
			run(perRound)
			times[i] = append(times[i], time.Since(began).Seconds()*1e6/perRound)
		}
	}
	median := func(v []float64) float64 {
		slices.Sort(v)
		return v[len(v)/2]
	}
	d, p := median(times[0]), median(times[1])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(d, "direct-µs/msg")
	b.ReportMetric(p, "proxied-µs/msg")
	b.ReportMetric(100*d/p, "%ofdirect")
}

func BenchmarkPgxDirect(b *testing.B)          { bench(b, pgxRoundTrips, false) }
func BenchmarkPgxProxied(b *testing.B)         { bench(b, pgxRoundTrips, true) }
func BenchmarkPgxPoolDirect(b *testing.B)      { bench(b, pgxPool, false) }
func BenchmarkPgxPoolProxied(b *testing.B)     { bench(b, pgxPool, true) }
func BenchmarkAMQPDirect(b *testing.B)         { bench(b, amqpWindow, false) }
func BenchmarkAMQPProxied(b *testing.B)        { bench(b, amqpWindow, true) }
func BenchmarkAMQPConfirmDirect(b *testing.B)  { bench(b, amqpRoundTrips, false) }
func BenchmarkAMQPConfirmProxied(b *testing.B) { bench(b, amqpRoundTrips, true) }

func BenchmarkComparePgx(b *testing.B)         { compare(b, pgxRoundTrips) }
func BenchmarkComparePgxPool(b *testing.B)     { compare(b, pgxPool) }
func BenchmarkCompareAMQP(b *testing.B)        { compare(b, amqpWindow) }
func BenchmarkCompareAMQPConfirm(b *testing.B) { compare(b, amqpRoundTrips) }

// BenchmarkLane opens a lane, connects to both servers through it, freezes and
// closes it: what a crash run pays for the wire.
func BenchmarkLane(b *testing.B) {
	p := newProxy(b, Config{})
	var closing time.Duration
	n := 0
	for b.Loop() {
		l := newLane(b, p)
		c := connectPG(b, l)
		conn, err := amqp.Dial(amqpThrough(l))
		if err != nil {
			b.Fatal(err)
		}
		l.Freeze()
		began := time.Now()
		if err := l.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
		closing += time.Since(began)
		_ = c.Close(context.Background())
		_ = conn.Close()
		n++
	}
	b.ReportMetric(float64(closing.Microseconds())/float64(n), "µs/close")
}
