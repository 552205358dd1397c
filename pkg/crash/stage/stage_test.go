package stage_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/crash/stage"
	"crashcourse/pkg/servertest"
)

func TestListener(t *testing.T) {
	conn := servertest.New(t).Conn
	l, err := stage.Listen(conn, "events", "order.#")
	if err != nil {
		t.Fatal(err)
	}
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	publish := func(key, id string) {
		t.Helper()
		if err := ch.PublishWithContext(t.Context(), "events", key, false, false, amqp.Publishing{MessageId: id, Type: "crashcourse.barrier"}); err != nil {
			t.Fatal(err)
		}
	}
	// One channel publishes in order; Sync uses another, so make sure that the
	// broker has it all.
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	confirmed := ch.NotifyPublish(make(chan amqp.Confirmation, 3))
	publish("order.placed", "1")
	publish("parcel.sent", "not bound")
	publish("order.paid", "2")
	for range 3 {
		<-confirmed
	}
	if err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := l.Arrived()
	if len(got) != 2 || got[0].MessageId != "1" || got[1].MessageId != "2" {
		t.Errorf("arrived: %v", got)
	}
	if err := l.Bind("parcel.#"); err != nil {
		t.Fatal(err)
	}
	publish("parcel.sent", "3")
	<-confirmed
	if err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := l.Arrived(); len(got) != 3 {
		t.Errorf("after Bind: %v", got)
	}
	l.Close()
	if l.Lost() == nil || l.Sync(t.Context()) == nil {
		t.Error("a closed listener still claims to listen")
	}
}

func TestSameJSON(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{`{"a": 1, "b": [2]}`, `{"b":[2],"a":1}`, true},
		{`9007199254740993`, `9007199254740992`, false}, // a float64 does not tell them apart
		{`{}`, `{} {}`, false},
		{`{`, `{`, false},
	} {
		if got := stage.SameJSON([]byte(c.a), []byte(c.b)); got != c.want {
			t.Errorf("SameJSON(%s, %s) = %v", c.a, c.b, got)
		}
	}
}

func TestData(t *testing.T) {
	one, two := stage.UUID(rand.New(rand.NewPCG(1, 2))), stage.UUID(rand.New(rand.NewPCG(1, 2)))
	if one != two || one.Version() != 4 {
		t.Errorf("UUIDs of one seed: %s, %s", one, two)
	}
	if s := stage.Clip("ééé", 3); s != "é…" || !json.Valid([]byte(`"`+s+`"`)) {
		t.Errorf("Clip cuts a character in two: %q", s)
	}
	if s := stage.Short("12345678-90"); s != "12345678…" {
		t.Errorf("Short: %q", s)
	}
}

func TestQueue(t *testing.T) {
	conn := servertest.New(t).Conn
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	// One that an answer has made, with other arguments.
	if _, err := ch.QueueDeclare("work", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds what the first has left
		q, err := stage.NewQueue(conn, "work", amqp.Table{"x-max-priority": 3})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := q.Ready(); n != 0 || err != nil {
			t.Errorf("a new queue holds %d messages (%v)", n, err)
		}
		if err := q.Send(t.Context(), amqp.Publishing{MessageId: "1"}, amqp.Publishing{MessageId: "2"}); err != nil {
			t.Fatal(err)
		}
		if n, err := q.Ready(); n != 2 || err != nil {
			t.Errorf("%d messages wait (%v), want 2", n, err)
		}
		if err := q.Touch(1); err != nil {
			t.Fatal(err)
		}
		for i, redelivered := range []bool{true, false} {
			d, ok, err := ch.Get("work", false)
			if err != nil || !ok || d.MessageId != fmt.Sprint(i+1) || d.Redelivered != redelivered {
				t.Errorf("message %d: %q, redelivered %v (%v)", i+1, d.MessageId, d.Redelivered, err)
			}
			if err := d.Ack(false); err != nil {
				t.Fatal(err)
			}
		}
		q.Close()
	}
}
