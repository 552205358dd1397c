package wire

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func publish(t testing.TB, ch *amqp.Channel, key, body string) *amqp.DeferredConfirmation {
	t.Helper()
	dc, err := ch.PublishWithDeferredConfirm("", key, true, false, amqp.Publishing{
		ContentType: "text/plain", MessageId: "id-" + body[:min(8, len(body))], Body: []byte(body),
		Headers: amqp.Table{"n": int32(1), "deep": amqp.Table{"list": []any{"a", int64(2)}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return dc
}

func TestConfirmedPublish(t *testing.T) {
	queue := makeQueue(t)
	p := newProxy(t, Config{})
	ch := channelOf(t, connectAMQP(t, newLane(t, p)))
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if ok, err := publish(t, ch, queue, fmt.Sprint("hello ", i)).WaitContext(within(t, 5*time.Second)); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	expectSteps(t, p.Trace(), "> channel.open", "< channel.open-ok", "> confirm.select", "< confirm.select-ok",
		"> basic.publish "+queue, "< basic.ack 1", "> basic.publish "+queue, "< basic.ack 2")
	for _, m := range p.Trace().Messages {
		if m.Effect == Publish && m.DeliveryTag == 2 {
			if m.MessageID != "id-hello 1" || m.Detail != "hello 1" || m.Channel != 1 {
				t.Errorf("publish recorded as %+v", m)
			}
		}
	}
}

func TestReturnedPublish(t *testing.T) {
	p := newProxy(t, Config{})
	ch := channelOf(t, connectAMQP(t, newLane(t, p)))
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	if ok, err := publish(t, ch, "no-such-queue", "x").WaitContext(within(t, 5*time.Second)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if r := await(t, "a return", returns); string(r.Body) != "x" || r.ReplyCode != 312 {
		t.Errorf("returned %+v", r)
	}
	got := steps(p.Trace(), nil)
	if want := []string{"> basic.publish no-such-queue", "< basic.return no-such-queue", "< basic.ack 1"}; !slices.Equal(got[len(got)-3:], want) {
		t.Errorf("steps %q", got)
	}
}

func TestConsume(t *testing.T) {
	queue := makeQueue(t)
	p := newProxy(t, Config{})
	ch := channelOf(t, connectAMQP(t, newLane(t, p)))
	if err := ch.Qos(10, 0, false); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		publish(t, ch, queue, fmt.Sprint(i))
	}
	deliveries, err := ch.Consume(queue, "me", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		d := await(t, "a delivery", deliveries)
		if string(d.Body) != fmt.Sprint(i) {
			t.Errorf("delivery %d is %q", i, d.Body)
		}
		switch i {
		case 0:
			err = d.Ack(false)
		case 2:
			err = d.Ack(true)
		case 3:
			err = d.Nack(false, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.Close(); err != nil {
		t.Fatal(err)
	}
	up := steps(p.Trace(), func(m Message) bool { return m.Dir == ToServer })
	want := []string{"> channel.open", "> basic.qos 10",
		"> basic.publish " + queue, "> basic.publish " + queue, "> basic.publish " + queue, "> basic.publish " + queue,
		"> basic.consume " + queue, "> basic.ack 1", "> basic.ack ≤3", "> basic.nack 4", "> channel.close"}
	if !slices.Equal(up, want) {
		t.Errorf("steps\n%q, want\n%q", up, want)
	}
	down := steps(p.Trace(), func(m Message) bool { return m.Effect == Deliver })
	for i, name := range down {
		if name != fmt.Sprintf("< basic.deliver %s #%d", queue, i+1) {
			t.Errorf("delivery %d is named %q", i, name)
		}
	}
}

func TestBodySizes(t *testing.T) {
	queue := makeQueue(t)
	p := newProxy(t, Config{})
	l := newLane(t, p)
	ch := channelOf(t, connectAMQP(t, l))
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, 1000, 65535, 65536, 131064, 131065, 500_000, 5_000_000} {
		body := bytes.Repeat([]byte("abcdefgh\x00"), size/9+1)[:size]
		dc, err := ch.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{MessageId: fmt.Sprint(size), Body: body})
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := dc.WaitContext(within(t, 10*time.Second)); !ok || err != nil {
			t.Fatal(size, ok, err)
		}
		d, ok, err := ch.Get(queue, true)
		if err != nil || !ok || !bytes.Equal(d.Body, body) {
			t.Fatalf("body of %d bytes: got %d bytes, %v, %v", size, len(d.Body), ok, err)
		}
	}
	sizes := 0
	for _, m := range p.Trace().Messages {
		if m.Effect == Publish {
			sizes++
			var want int64
			if _, err := fmt.Sscan(m.MessageID, &want); err != nil {
				t.Fatal(err)
			}
			if m.Size < want || m.Size > want+want/1000+500 {
				t.Errorf("publish of %d bytes has size %d", want, m.Size)
			}
		}
	}
	if sizes != 9 {
		t.Errorf("%d publishes recorded", sizes)
	}
}

// TestChannelsInterleave publishes bodies of several frames on many channels of
// one connection at once.
func TestChannelsInterleave(t *testing.T) {
	queue := makeQueue(t)
	p := newProxy(t, Config{})
	conn := connectAMQP(t, newLane(t, p))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			ch, err := conn.Channel()
			if err != nil {
				t.Error(err)
				return
			}
			if err := ch.Confirm(false); err != nil {
				t.Error(err)
			}
			for i := range 10 {
				body := strings.Repeat(string(rune('a'+w)), 150_000*(i%3)+i)
				dc, err := ch.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{Body: []byte(body)})
				if err != nil {
					t.Error(err)
					return
				}
				if ok, err := dc.WaitContext(within(t, 20*time.Second)); !ok || err != nil {
					t.Error(ok, err)
				}
			}
		})
	}
	wg.Wait()
	if n := countAMQP(t, queue); n != 80 {
		t.Errorf("%d messages arrived, want 80", n)
	}
}

func TestChannelError(t *testing.T) {
	p := newProxy(t, Config{})
	ch := channelOf(t, connectAMQP(t, newLane(t, p)))
	if _, err := ch.QueueDeclarePassive("nowhere", false, false, false, false, nil); err == nil {
		t.Fatal("a queue that does not exist was found")
	}
	for _, m := range p.Trace().Messages {
		if m.Type == "channel.close" && m.Dir == ToClient {
			if !strings.HasPrefix(m.Detail, "404 NOT_FOUND") {
				t.Errorf("detail %q", m.Detail)
			}
			return
		}
	}
	t.Error("no channel.close in the trace")
}
