package wire

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestNack(t *testing.T) {
	queue := makeQueue(t)
	decide := func(m *Message) Action {
		if m.Effect == Publish && m.DeliveryTag%3 == 0 {
			return Action{Kind: Nack}
		}
		return Action{}
	}
	p := newProxy(t, Config{Decide: decide})
	ch := channelOf(t, connectAMQP(t, newLane(t, p)))
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 100))
	var confirms []*amqp.DeferredConfirmation
	for i := range 100 {
		body := fmt.Sprint(i + 1)
		if i == 50 {
			body = strings.Repeat("large", 100_000)
		}
		confirms = append(confirms, publish(t, ch, queue, body))
	}
	for i, dc := range confirms {
		acked, err := dc.WaitContext(within(t, 5*time.Second))
		if err != nil {
			t.Fatalf("publish %d was never settled: %v", i+1, err)
		}
		if want := (i+1)%3 != 0; acked != want {
			t.Errorf("publish %d: acked %v, want %v", i+1, acked, want)
		}
	}
	if n := countAMQP(t, queue); n != 67 {
		t.Errorf("%d messages arrived, want 67", n)
	}
	if len(returns) > 0 {
		t.Errorf("a refused publish came back as unroutable")
	}
	nacks := 0
	for _, m := range p.Trace().Messages {
		if m.Type == "basic.nack" && m.Dir == ToClient && m.Fault == string(Nack) {
			nacks++
		}
	}
	if nacks != 33 {
		t.Errorf("%d nacks recorded, want 33", nacks)
	}
}

func TestNackElsewherePasses(t *testing.T) {
	queue := makeQueue(t)
	p := newProxy(t, Config{Decide: func(*Message) Action { return Action{Kind: Nack} }})
	l := newLane(t, p)
	execPG(t, connectPG(t, l), "SELECT 1")
	ch := channelOf(t, connectAMQP(t, l))
	publish(t, ch, queue, "without confirms")
	closeLane(t, l)
	if n := countAMQP(t, queue); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
	for _, m := range p.Trace().Messages {
		if m.Fault != "" {
			t.Errorf("%s is recorded as struck by %s", m.Name, m.Fault)
		}
	}
}

func TestSplitAck(t *testing.T) {
	for _, c := range []struct {
		refused   []uint64
		ackedUpTo uint64
		tag       uint64
		multiple  bool
		want      string
		left      int
	}{
		{[]uint64{3}, 0, 2, false, "", 1},
		{[]uint64{3}, 0, 3, false, "nack 3", 0},
		{[]uint64{3}, 0, 2, true, "", 1},
		{[]uint64{3}, 0, 3, true, "ack ≤2, nack 3", 0},
		{[]uint64{3}, 2, 3, true, "nack 3", 0},
		{[]uint64{3}, 0, 5, true, "ack ≤2, nack 3, ack ≤5", 0},
		{[]uint64{1}, 0, 5, true, "nack 1, ack ≤5", 0},
		{[]uint64{1, 2, 5, 9}, 0, 6, true, "nack 1, nack 2, ack ≤4, nack 5, ack ≤6", 1},
		{[]uint64{1, 5}, 0, 5, false, "nack 5", 1},
		{[]uint64{4}, 0, 7, true, "ack ≤3, nack 4, ack ≤7", 0},
	} {
		ch := &amqpChannel{refused: c.refused, ackedUpTo: c.ackedUpTo, published: 7}
		var got []string
		for _, s := range ch.splitAck(c.tag, c.multiple) {
			got = append(got, settleName(s))
		}
		if strings.Join(got, ", ") != c.want || len(ch.refused) != c.left {
			t.Errorf("ack %s with %v refused: %q, %d left", tagName(c.tag, c.multiple), c.refused, got, len(ch.refused))
		}
	}
}

func settleName(s amqpSettle) string {
	verb := "ack "
	if s.fault != Pass {
		verb = string(s.fault) + " "
	}
	return verb + tagName(s.tag, s.multiple)
}

// TestConfirmed follows a channel on which some publishes were rejected, ack by ack.
func TestConfirmed(t *testing.T) {
	type ack struct {
		tag      uint64
		multiple bool
		want     string // "-": the ack passes as it is
	}
	for _, c := range []struct {
		rejected, refused []uint64
		acks              []ack
	}{
		{nil, nil, []ack{{1, false, "-"}, {3, true, "-"}}},
		{[]uint64{3}, nil, []ack{{1, false, "reject 3"}, {2, false, ""}, {3, false, ""}, {4, false, "ack ≤4"}, {5, false, "-"}}},
		{[]uint64{3}, nil, []ack{{3, false, "reject 3"}, {2, true, ""}, {5, false, ""}, {4, false, "ack ≤5"}}},
		{[]uint64{3}, nil, []ack{{2, true, "reject 3"}, {4, true, "ack ≤4"}, {5, false, "-"}}},
		{[]uint64{3}, nil, []ack{{0, true, "reject 3, ack ≤7"}}},
		{[]uint64{7}, nil, []ack{{6, true, "reject 7"}, {7, false, "ack ≤6"}}},
		{[]uint64{1}, nil, []ack{{6, false, "reject 1"}, {2, false, ""}, {1, false, "ack ≤2, ack 6"}, {7, true, "-"}}},
		{[]uint64{2}, []uint64{3}, []ack{{1, false, "reject 2"}, {4, true, "ack ≤2, nack 3, ack ≤4"}, {5, false, "-"}}},
	} {
		ch := &amqpChannel{rejected: c.rejected, refused: c.refused, published: 7, settled: map[uint64]bool{}}
		for _, a := range c.acks {
			told, changed := ch.confirmed(a.tag, a.multiple)
			got := []string{}
			for _, s := range told {
				got = append(got, settleName(s))
			}
			want := a.want
			if changed != (want != "-") || changed && strings.Join(got, ", ") != want {
				t.Errorf("rejected %v, refused %v, ack %s: %q, changed %v; want %q", c.rejected, c.refused, tagName(a.tag, a.multiple), got, changed, want)
			}
		}
		if len(ch.told) > 0 {
			t.Errorf("rejected %v: %v are still awaited", c.rejected, ch.told)
		}
	}
}

// TestReject publishes a hundred, of which every third is rejected ahead of the
// confirms of the others.
func TestReject(t *testing.T) {
	queue := makeQueue(t)
	decide := func(m *Message) Action {
		if m.Effect == Publish && m.DeliveryTag%3 == 0 {
			return Action{Kind: Reject}
		}
		return Action{}
	}
	p := newProxy(t, Config{Decide: decide})
	ch := channelOf(t, connectAMQP(t, newLane(t, p)))
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	var confirms []*amqp.DeferredConfirmation
	for i := range 100 {
		confirms = append(confirms, publish(t, ch, queue, fmt.Sprint(i+1)))
	}
	for i, dc := range confirms {
		acked, err := dc.WaitContext(within(t, 5*time.Second))
		if err != nil {
			t.Fatalf("publish %d was never settled: %v", i+1, err)
		}
		if want := (i+1)%3 != 0; acked != want {
			t.Errorf("publish %d: acked %v, want %v", i+1, acked, want)
		}
	}
	if n := countAMQP(t, queue); n != 67 {
		t.Errorf("%d messages arrived, want 67", n)
	}
	nacks := 0
	for _, m := range p.Trace().Messages {
		if m.Type == "basic.nack" && m.Dir == ToClient && m.Fault == string(Reject) {
			nacks++
		}
	}
	if nacks != 33 {
		t.Errorf("%d nacks recorded, want 33", nacks)
	}
}

func TestDuplicate(t *testing.T) {
	queue := makeQueue(t)
	uri, err := amqp.ParseURI(servers.amqpURL)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 10, 1_000_000} {
		twins := make(chan Publishing, 1)
		decide, hit := at(ToServer, "basic.publish "+queue, Action{Kind: Duplicate})
		p := newProxy(t, Config{Decide: decide, Twin: func(pub Publishing) { twins <- pub }})
		l := newLane(t, p)
		ch := channelOf(t, connectAMQP(t, l))
		want := amqp.Publishing{
			ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Priority: 3,
			CorrelationId: "c", ReplyTo: "r", Expiration: "100000", MessageId: "m", Timestamp: time.Unix(1700000000, 0),
			Type: "order.placed", UserId: uri.Username, AppId: "app", Body: []byte(strings.Repeat("x", size)),
			Headers: amqp.Table{
				"s": "text", "i": int32(-5), "l": int64(1) << 40, "b": true, "f": float64(1.5), "raw": []byte{1, 2},
				"t": time.Unix(1700000001, 0), "nil": nil, "table": amqp.Table{"deep": "x"}, "list": []any{"a", int32(1)},
			},
		}
		if err := ch.Publish("", queue, true, false, want); err != nil {
			t.Fatal(err)
		}
		await(t, "the duplicate", hit)
		got := await(t, "the twin", twins)
		if len(want.Body) == 0 {
			want.Body = nil
		}
		if !reflect.DeepEqual(got.Message, want) {
			t.Errorf("twin of %d bytes differs: %+v", size, got.Message.Headers)
		}
		if got.RoutingKey != queue || got.Exchange != "" || !got.Mandatory {
			t.Errorf("twin goes to %q %q, mandatory %v", got.Exchange, got.RoutingKey, got.Mandatory)
		}
		closeLane(t, l)
	}
	if n := countAMQP(t, queue); n != 3 {
		t.Errorf("%d originals arrived, want 3", n)
	}
}

func TestShutdownAMQP(t *testing.T) {
	queue := makeQueue(t)
	for _, dir := range []Direction{ToServer, ToClient} {
		name := "basic.publish " + queue
		if dir == ToClient {
			name = "basic.ack 1"
		}
		decide, hit := at(dir, name, Action{Kind: Shutdown})
		p := newProxy(t, Config{Decide: decide})
		l := newLane(t, p)
		conn := connectAMQP(t, l)
		closed := conn.NotifyClose(make(chan *amqp.Error, 1))
		ch := channelOf(t, conn)
		if err := ch.Confirm(false); err != nil {
			t.Fatal(err)
		}
		publish(t, ch, queue, "x")
		await(t, "the shutdown", hit)
		if err := await(t, "the client to notice", closed); err == nil || err.Code != 320 {
			t.Errorf("the client saw %v", err)
		}
		closeLane(t, l)
	}
	if n := countAMQP(t, queue); n != 1 {
		t.Errorf("%d messages, want the one whose confirm was struck", n)
	}
}
