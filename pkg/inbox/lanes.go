package inbox

import "slices"

// lanes are the messages that the consumer holds and has not settled. Messages of
// one key stand in one lane, in the order of arrival; so do those of one ID, for
// one of them would only wait for the other in the database. Of each lane one
// batch at a time is at work. It belongs to one goroutine.
type lanes struct {
	named map[string]*lane
	ready []*lane // not busy, and with something in it
}

type lane struct {
	name  string // "" if nothing else can come into it
	items []*item
	busy  bool // some of it is at work, or waits for another try
}

// add puts a message at the end of the lane of its key, or else of its ID.
func (l *lanes) add(it *item, key string) {
	name := ""
	switch {
	case it.invalid != nil:
	case key != "":
		name = "key " + key
	default:
		name = "id " + it.ID
	}
	la := l.named[name]
	if la == nil || name == "" {
		la = &lane{name: name}
		if name != "" {
			l.named[name] = la
		}
	}
	it.lane = la
	la.items = append(la.items, it)
	if !la.busy && len(la.items) == 1 {
		l.ready = append(l.ready, la)
	}
}

// take takes up to n messages, up to so many of each lane, and makes their lanes
// busy.
func (l *lanes) take(n, each int) (batch []*item) {
	for len(l.ready) > 0 && len(batch) < n {
		la := l.ready[0]
		l.ready[0] = nil
		l.ready = l.ready[1:]
		k := min(len(la.items), each, n-len(batch))
		batch = append(batch, la.items[:k]...)
		la.items = la.items[k:]
		la.busy = true
	}
	return batch
}

// back puts messages that were taken back to the front of their lane.
func (l *lanes) back(la *lane, items []*item) { la.items = slices.Concat(items, la.items) }

// free ends the work on a lane.
func (l *lanes) free(la *lane) {
	la.busy = false
	if len(la.items) > 0 {
		l.ready = append(l.ready, la)
	} else if la.name != "" {
		delete(l.named, la.name)
	}
}
