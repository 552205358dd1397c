package wire

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// TestTraceJSON fixes the JSON form, which is promised to stay.
func TestTraceJSON(t *testing.T) {
	tr := Trace{Version: TraceVersion, Dropped: 3, Messages: []Message{
		{
			Seq: 1, Point: Point{Process: 2, Protocol: AMQP, Conn: 1, Dir: ToServer, Index: 4}, Time: 1500 * time.Microsecond,
			Step: true, Type: "basic.publish", Name: "basic.publish order.placed", Effect: Publish, Detail: "{}", Size: 120,
			Fault: string(Blackhole), MessageID: "m", DeliveryTag: 7, Multiple: true, Channel: 1,
		},
		{Seq: 2, Point: Point{Process: 1, Protocol: PG, Conn: 1, Dir: ToClient}, Type: "ReadyForQuery", Name: "ready", Size: 6},
	}}
	want := `{"version":1,"messages":[` +
		`{"seq":1,"process":2,"protocol":"amqp","conn":1,"dir":"\u003e","index":4,"time":1500000,"step":true,` +
		`"type":"basic.publish","name":"basic.publish order.placed","effect":"publish","detail":"{}","size":120,` +
		`"fault":"blackhole","message_id":"m","delivery_tag":7,"multiple":true,"channel":1},` +
		`{"seq":2,"process":1,"protocol":"pg","conn":1,"dir":"\u003c","index":0,"time":0,"type":"ReadyForQuery","name":"ready","size":6}` +
		`],"dropped":3}`
	got, err := json.Marshal(tr)
	if err != nil || string(got) != want {
		t.Errorf("got  %s\nwant %s\n%v", got, want, err)
	}
	var back Trace
	if err := json.Unmarshal(got, &back); err != nil || !reflect.DeepEqual(back, tr) {
		t.Errorf("read back as %+v, %v", back, err)
	}
}

func TestPoints(t *testing.T) {
	for _, p := range []Point{
		{Process: 1, Protocol: PG, Conn: 1, Dir: ToServer, Index: 5},
		{Process: 12, Protocol: AMQP, Conn: 3, Dir: ToClient, Index: 0},
		{Process: 1, Protocol: HTTP, Conn: 2, Dir: ToClient, Index: 7},
	} {
		if got, err := ParsePoint(p.String()); err != nil || got != p {
			t.Errorf("%s is read as %+v, %v", p, got, err)
		}
	}
	for _, bad := range []string{"", "p1", "p1.pg1", "1.pg1>5", "p1.smtp1>5", "px.pg1>5", "p1.pg>5", "p1.pg1>", "p1.pg1>x"} {
		if _, err := ParsePoint(bad); err == nil {
			t.Errorf("%q was read as a point", bad)
		}
	}
}
