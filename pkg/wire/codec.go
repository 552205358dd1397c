package wire

import "time"

const (
	// maxWhole is how large a message may be and still be decided as a whole. A
	// larger one is decided on its first maxWhole bytes, and the rest streams
	// through behind it.
	maxWhole = 64 << 10
	// firstBuffer is a stream's first read buffer. It grows only when it is
	// full of bytes that really arrived, so a claimed length costs nothing.
	firstBuffer = 16 << 10
)

// piece is what a codec finds at the start of its input: a message to decide,
// more of a message decided before, or something to swallow.
type piece struct {
	wait  bool   // the input does not hold a whole piece yet: read more
	n     int    // bytes of the input that are dealt with
	data  []byte // what goes out if it passes
	msg   bool   // a message to number, decide and record; the codec filled it in
	run   int    // more than 0: so many messages of a kind that is recorded as one entry
	drop  bool   // nothing goes out (held back until it is whole, or swallowed)
	grows int64  // bytes to add to the size of the entry of a message decided before
	entry *int   // that entry; also where to keep the entry of a message that will grow
}

// codec understands one direction of one connection. All methods are called
// under the ordering lock, by that direction's pump. A codec and its peer for
// the other direction share a session.
type codec interface {
	// next frames the start of in, and fills m when that is a message. What a
	// message towards the server does to the conversation takes effect when
	// passed is called, for it may be held back or dropped. What the server says
	// has happened, whether the client hears of it or not.
	next(in []byte, m *Message) (piece, error)
	// passed says that the message framed last goes out as it is.
	passed()
	// dropped says that the message framed last does not go out, and what is
	// still to come of it must not either.
	dropped()
	// nack, fail and twin apply the faults of those names to the message framed
	// last. They report false where the fault does not apply; else nack and fail
	// return what goes out in its place, and passed must not be called. A nack
	// ahead is told before the next confirm, whichever that is.
	nack(ahead bool) ([]byte, bool)
	fail(sqlState string) ([]byte, bool)
	twin(func(Publishing)) bool
	// refuse applies Fail where the server is not to see the message at all. It
	// returns what the client is told in the server's place, and reports false
	// where that does not apply.
	refuse() (answer []byte, m Message, ok bool)
	// heartbeat returns what keeps the destination from giving the connection up
	// while a message is held, and how often to send it; 0 for never.
	heartbeat() ([]byte, time.Duration)
}

// session is what the two codecs of a connection know together.
type session interface {
	// shutdown returns what a server that is going away tells its client, nil
	// when the client is in the middle of a message, and false where servers do
	// not say so.
	shutdown() ([]byte, bool)
	// leave returns what ends the connection towards the server in an orderly
	// way, once all that was forwarded has been dealt with, and whether the
	// server then answers. Without an answer to wait for, a FIN ends it.
	leave() (goodbye []byte, answers bool)
	// left says that the server has answered.
	left() bool
	// busy says that the server is at work on something that it will answer.
	busy() bool
	// unanswered counts the HTTP requests that were forwarded and not answered.
	unanswered() int
}
