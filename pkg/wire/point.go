package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// Protocol names one of the protocols the proxy understands.
type Protocol string

// The protocols.
const (
	PG   Protocol = "pg"   // PostgreSQL frontend/backend protocol, version 3
	AMQP Protocol = "amqp" // AMQP 0-9-1
	HTTP Protocol = "http" // HTTP/1.1
)

// Direction is the way a message travels.
type Direction string

// The directions.
const (
	ToServer Direction = ">"
	ToClient Direction = "<"
)

// Point says where in a run a message passed, in coordinates that do not
// depend on how the streams of a run happen to interleave: which process, which
// of its connections, which direction, and how many steps passed there before.
type Point struct {
	Process  int       `json:"process"` // 1 for the first process started in a run, 2 for the next
	Protocol Protocol  `json:"protocol"`
	Conn     int       `json:"conn"` // 1 for the first connection this process opened with this protocol
	Dir      Direction `json:"dir"`
	Index    int       `json:"index"` // 1 for the first step of that stream; messages that are no steps carry the index of the step before them
}

// String gives the short form, such as "p1.pg1>5": process 1, its first
// PostgreSQL connection, the fifth step towards the server.
func (p Point) String() string {
	return fmt.Sprintf("p%d.%s%d%s%d", p.Process, p.Protocol, p.Conn, p.Dir, p.Index)
}

// ParsePoint reads what [Point.String] writes.
func ParsePoint(s string) (Point, error) {
	bad := fmt.Errorf("wire: %q is not a point such as p1.pg1>5", s)
	head, tail, ok := strings.Cut(s, ".")
	if !ok || !strings.HasPrefix(head, "p") {
		return Point{}, bad
	}
	var p Point
	var err error
	if p.Process, err = strconv.Atoi(head[1:]); err != nil {
		return Point{}, bad
	}
	i := strings.IndexAny(tail, "<>")
	if i < 0 {
		return Point{}, bad
	}
	stream := tail[:i]
	p.Dir = Direction(tail[i : i+1])
	switch {
	case strings.HasPrefix(stream, string(PG)):
		p.Protocol = PG
	case strings.HasPrefix(stream, string(AMQP)):
		p.Protocol = AMQP
	case strings.HasPrefix(stream, string(HTTP)):
		p.Protocol = HTTP
	default:
		return Point{}, bad
	}
	if p.Conn, err = strconv.Atoi(stream[len(p.Protocol):]); err != nil {
		return Point{}, bad
	}
	if p.Index, err = strconv.Atoi(tail[i+1:]); err != nil {
		return Point{}, bad
	}
	return p, nil
}
