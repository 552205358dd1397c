package inbox

// tags are the delivery tags of one channel: 1, 2, 3 and so on. They mean nothing
// on any other channel.
type tags struct {
	low     uint64          // all below it are settled
	settled map[uint64]bool // of low and above
}

// ack says how to acknowledge what has been handled: all up to upTo by one ack of
// several, if that is not 0, and each of the others by one of its own. An ack of
// several also acks what is still in hand, so it goes only as far as nothing is.
func (t *tags) ack(handled []uint64) (upTo uint64, others []uint64) {
	fresh := make(map[uint64]bool, len(handled))
	for _, tag := range handled {
		fresh[tag], t.settled[tag] = true, true
	}
	n := 0
	for ; t.settled[t.low]; t.low++ {
		delete(t.settled, t.low)
		if fresh[t.low] { // the broker knows no tag that is settled already
			upTo = t.low
			n++
		}
	}
	if n < 2 {
		return 0, handled
	}
	for _, tag := range handled {
		if tag > upTo {
			others = append(others, tag)
		}
	}
	return upTo, others
}

// rejected books a tag that has been rejected.
func (t *tags) rejected(tag uint64) { t.settled[tag] = true }
