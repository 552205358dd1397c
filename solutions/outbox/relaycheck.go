package outbox

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
)

func (s *relaying) Settle(ctx context.Context) error {
	if err := s.listener.Sync(ctx); err != nil {
		return err
	}
	s.baseline = len(s.arrivals())
	return nil
}

func (s *relaying) Check(ctx context.Context, _ int) ([]crash.Violation, error) {
	if err := s.listener.Sync(ctx); err != nil {
		return nil, err
	}
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	arrivals := s.arrivals()
	var out []crash.Violation
	add := func(i crash.Invariant, format string, args ...any) {
		out = append(out, crash.Violation{Invariant: i.Name, Detail: fmt.Sprintf(format, args...)})
	}

	arrived := map[*event]int{}
	for _, a := range arrivals {
		if a.event == nil {
			s.stranger(a, add)
			continue
		}
		arrived[a.event]++
		if arrived[a.event] == 1 {
			s.intact(a, add)
		}
	}
	for _, e := range s.expected() {
		switch {
		case arrived[e] > 0:
		case s.settled[e.id.String()]:
			add(noLostEvent, "event %d (%s of aggregate %s) is settled in the outbox, and never reached the queue", e.n, e.kind, s.letter(e))
		case e.late && slices.ContainsFunc(s.events, func(x *event) bool { return x.second && x.aggregate != e.aggregate && arrived[x] > 0 }):
			add(noLostEvent, "event %d (%s of aggregate %s) was committed after events with a higher seq; those that came after it are published, and it is passed over for ever", e.n, e.kind, s.letter(e))
			out[len(out)-1].Explains = true
		}
	}

	last := map[int]*event{}
	first := map[*event]bool{}
	for _, a := range arrivals {
		if a.event == nil || first[a.event] {
			continue
		}
		first[a.event] = true
		if before := last[a.event.aggregate]; before != nil && before.n > a.event.n {
			add(orderPerKey, "of aggregate %s, event %d (%s) first arrived after event %d (%s)", s.letter(a.event), a.event.n, a.event.kind, before.n, before.kind)
		} else {
			last[a.event.aggregate] = a.event
		}
	}
	// An event that never arrived, with a later one of its aggregate that did, is
	// out of order too, but lost is what it is called.

	if s.baseline >= 0 && len(arrivals) > s.baseline {
		add(noResend, "after everything had been published and the relay started again, it published %d messages, event %d among them", len(arrivals)-s.baseline, s.number(arrivals[s.baseline]))
	}
	for e, n := range arrived {
		if n > floodAfter {
			add(noResend, "event %d was published %d times and its row is still not marked", e.n, n)
			break
		}
	}
	if s.deaf {
		add(stopsWhenAsked, "asked to stop, a relay was still running %.0f seconds later", deafAfter.Seconds())
	}
	if s.leaderless {
		out = append(out, crash.Violation{Invariant: takesOver.Name, Explains: true,
			Detail: fmt.Sprintf("the process at work ended, and %.0f seconds after new events had come no other had taken them up", deafAfter.Seconds())})
	}
	if s.refused != nil {
		out = append(out, crash.Violation{Invariant: crash.AllWorkDone, Detail: fmt.Sprintf("while the relay ran, the shop could not write its orders any more: %v", s.refused)})
	}
	if len(out) == 0 && len(arrived) == len(s.events) && s.second {
		for _, e := range s.events {
			if !s.settled[e.id.String()] {
				add(noResend, "every event was published, but the row of event %d says it was not: the next start publishes it again", e.n)
				break
			}
		}
	}
	return out, nil
}

func (s *relaying) number(a arrival) int {
	if a.event == nil {
		return 0
	}
	return a.event.n
}

// letter names an aggregate: A, B, C.
func (s *relaying) letter(e *event) string { return stage.Letter(e.aggregate) }

// stranger judges a message whose id no event has.
func (s *relaying) stranger(a arrival, add func(crash.Invariant, string, ...any)) {
	if strings.EqualFold(a.MessageId, s.rolled.id.String()) {
		add(noPhantomEvent, "an event was published whose transaction had been rolled back")
		return
	}
	for _, e := range s.events {
		if stage.SameJSON(a.Body, e.payload) {
			add(eventIntact, "event %d was published with message id %q instead of its row's message_id", e.n, a.MessageId)
			return
		}
	}
	for _, e := range s.events {
		if bytes.Contains(a.Body, []byte(e.key)) {
			add(eventIntact, "a message about aggregate %s with message id %q and body %s is no row's event", s.letter(e), stage.Clip(a.MessageId, 60), stage.Clip(string(a.Body), 120))
			return
		}
	}
	if s.past.mentions(a.Body) {
		return // what a dead process of the run before had sent can come as late as this
	}
	add(noPhantomEvent, "a message with message id %q, routing key %q and body %s was published, of which no row speaks", stage.Clip(a.MessageId, 60), stage.Clip(a.RoutingKey, 60), stage.Clip(string(a.Body), 120))
}

// past knows the aggregates of runs before this one.
type past struct {
	mu   sync.Mutex
	keys []string
}

func (p *past) add(keys []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, keys...)
	const most = 1000 // far more than can still be on its way
	if len(p.keys) > most {
		p.keys = slices.Clone(p.keys[len(p.keys)-most:])
	}
}

func (p *past) mentions(body []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.keys, func(k string) bool { return bytes.Contains(body, []byte(k)) })
}

// intact compares a message with its row.
func (s *relaying) intact(a arrival, add func(crash.Invariant, string, ...any)) {
	e := a.event
	switch {
	case a.RoutingKey != e.kind:
		add(eventIntact, "event %d has routing key %q instead of %q", e.n, stage.Clip(a.RoutingKey, 60), e.kind)
	case !stage.SameJSON(a.Body, e.payload):
		add(eventIntact, "event %d has body %s instead of %s", e.n, stage.Clip(string(a.Body), 120), stage.Clip(string(e.payload), 120))
	case a.DeliveryMode != amqp.Persistent:
		add(eventIntact, "event %d is not persistent: a restart of the broker would lose it", e.n)
	case a.ContentType != "application/json":
		add(eventIntact, "event %d has content type %q instead of application/json", e.n, stage.Clip(a.ContentType, 60))
	}
}

func (s *relaying) Tables(ctx context.Context) ([]crash.Table, error) {
	rows, err := readOutbox(ctx, s.arena)
	if err != nil {
		return nil, err
	}
	arrivals := s.arrivals()
	arrived := map[*event]int{}
	for _, a := range arrivals {
		if a.event != nil {
			arrived[a.event]++
		}
	}
	outbox := crash.Table{Name: "outbox", Columns: []string{"event", "aggregate", "type", "published_at", "in the queue"}}
	stored := map[*event]row{}
	for _, r := range rows {
		if e := s.byID[r.id.String()]; e != nil {
			stored[e] = r
		}
	}
	for _, e := range s.events {
		if !s.second && (e.late || e.second) {
			continue // not committed yet
		}
		state := "row deleted"
		r, ok := stored[e]
		switch {
		case ok && r.published == nil:
			state = "NULL"
		case ok:
			state = r.published.UTC().Format("15:04:05.000")
		}
		times := "no"
		if n := arrived[e]; n == 1 {
			times = "once"
		} else if n > 1 {
			times = fmt.Sprintf("%d times", n)
		}
		outbox.Rows = append(outbox.Rows, []string{fmt.Sprint(e.n), s.letter(e), e.kind, state, times})
		if arrived[e] == 0 && state != "NULL" {
			outbox.Marks = append(outbox.Marks, len(outbox.Rows)-1)
		}
	}
	queue := crash.Table{Name: "queue bound to events", Columns: []string{"arrival", "event", "aggregate", "routing key", "message id"}}
	last := map[int]int{}
	for i, a := range arrivals {
		if i >= 40 {
			queue.Rows = append(queue.Rows, []string{fmt.Sprintf("and %d more", len(arrivals)-i), "", "", "", ""})
			break
		}
		n, letter := "?", "?"
		if a.event != nil {
			n, letter = fmt.Sprint(a.event.n), s.letter(a.event)
			if a.event.n < last[a.event.aggregate] {
				queue.Marks = append(queue.Marks, len(queue.Rows))
			}
			last[a.event.aggregate] = max(last[a.event.aggregate], a.event.n)
		}
		queue.Rows = append(queue.Rows, []string{fmt.Sprint(i + 1), n, letter, stage.Clip(a.RoutingKey, 40), stage.Short(a.MessageId)})
	}
	return []crash.Table{outbox, queue}, nil
}
