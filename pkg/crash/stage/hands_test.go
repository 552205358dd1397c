package stage_test

import (
	"testing"

	"crashcourse/pkg/crash/stage"
	"crashcourse/pkg/wire"
)

// wires plays what passes, and gives it as an arena does.
type wires []wire.Message

func (w *wires) pass(process int, typ string, change func(*wire.Message)) {
	m := wire.Message{Seq: len(*w) + 1, Type: typ, Channel: 1}
	m.Point = wire.Point{Process: process, Protocol: wire.AMQP, Conn: 1}
	if change != nil {
		change(&m)
	}
	*w = append(*w, m)
}

func (w *wires) deliver(process int, tag uint64, id string) {
	w.pass(process, "basic.deliver", func(m *wire.Message) { m.Effect, m.DeliveryTag, m.MessageID = wire.Deliver, tag, id })
}

func (w *wires) settle(process int, typ string, tag uint64, change func(*wire.Message)) {
	w.pass(process, typ, func(m *wire.Message) {
		m.Effect, m.DeliveryTag = wire.Ack, tag
		if change != nil {
			change(m)
		}
	})
}

func (w wires) since(seq int) []wire.Message { return w[seq:] }

func TestHands(t *testing.T) {
	var w wires
	var h stage.Hands
	see := func(what string, all, a int) {
		t.Helper()
		if h.Look(w.since); h.All() != all || h.Holds("a") != a {
			t.Errorf("%s: %d in hand, %d of them a; want %d and %d", what, h.All(), h.Holds("a"), all, a)
		}
	}
	w.pass(1, "connection.open-ok", nil)
	w.pass(2, "connection.open-ok", nil)
	for i, id := range []string{"a", "b", "c", "d"} {
		w.deliver(1, uint64(i+1), id)
	}
	w.deliver(2, 1, "a")
	see("delivered", 5, 2)
	w.settle(1, "basic.ack", 2, func(m *wire.Message) { m.Multiple = true })
	see("a multiple ack settles what is before it, on its channel", 3, 1)
	w.settle(1, "basic.ack", 3, func(m *wire.Message) { m.Fault = string(wire.Blackhole) })
	see("a swallowed ack settles nothing", 3, 1)
	w.settle(1, "basic.nack", 3, func(m *wire.Message) { m.Detail = "requeued" })
	w.settle(1, "basic.reject", 4, func(m *wire.Message) { m.Detail = "discarded" })
	see("put back, and rejected", 1, 1)
	if a, c, d := h.Of("a"), h.Of("c"), h.Of("d"); a != (stage.Settled{Delivered: 2, Acked: 1}) || c != (stage.Settled{Delivered: 1, Requeued: 1}) || d != (stage.Settled{Delivered: 1, Discarded: 1}) {
		t.Errorf("settled: a %+v, c %+v, d %+v", a, c, d)
	}

	w.pass(2, "basic.publish", func(m *wire.Message) { m.Fault = string(wire.Cut) })
	see("a broken connection gives all back", 0, 0)
	if off := h.CutOff(); len(off) != 1 || off[2].IsZero() {
		t.Errorf("cut off: %v", off)
	}
	w.pass(2, "connection.open-ok", func(m *wire.Message) { m.Conn = 2 })
	w.deliver(1, 5, "a")
	see("delivered again", 1, 1)
	if off := h.CutOff(); len(off) > 0 {
		t.Errorf("connected again, and still cut off: %v", off)
	}
	h.Ended(1)
	see("the process has ended", 0, 0)

	w.pass(3, "basic.consume", func(m *wire.Message) { m.Detail = "tag" + wire.NoAck })
	w.deliver(3, 1, "a")
	see("a consumer without acks holds nothing", 0, 0)
}

func TestHandsFree(t *testing.T) {
	var w wires
	var h stage.Hands
	free := func(what string, want bool) {
		t.Helper()
		if h.Look(w.since); h.Free(1) != want {
			t.Errorf("%s: free is %v", what, !want)
		}
	}
	w.pass(1, "connection.open-ok", nil)
	w.deliver(2, 1, "x")
	free("nothing has come yet", false)
	w.deliver(1, 1, "a")
	w.deliver(1, 2, "b")
	w.settle(1, "basic.ack", 1, nil)
	free("one of two is settled", false)
	w.settle(1, "basic.reject", 2, func(m *wire.Message) { m.Detail = "discarded" })
	free("both are", true)
}

func TestLastPublisher(t *testing.T) {
	var w wires
	if n := stage.LastPublisher(w.since); n != 0 {
		t.Errorf("process %d, and nobody has published", n)
	}
	for _, process := range []int{1, 3, 2} {
		w.pass(process, "basic.publish", func(m *wire.Message) { m.Effect = wire.Publish })
	}
	w.deliver(1, 1, "a")
	if n := stage.LastPublisher(w.since); n != 2 {
		t.Errorf("process %d, want 2", n)
	}
}
