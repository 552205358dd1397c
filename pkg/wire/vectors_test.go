package wire

import (
	"encoding/binary"
	"strings"
	"testing"
)

// A vector is a conversation as a specification has it, byte for byte. What
// real servers of one version do not say is tested so.
type vector struct {
	name  string // where it stands, and what it is
	lines []line
}

// line is what one side says, in whole messages, and how each is named: a step
// with a star before it, anything else without.
type line struct {
	dir   Direction
	bytes string
	names string // joined by ", "
}

func up(bytes, names string) line   { return line{ToServer, bytes, names} }
func down(bytes, names string) line { return line{ToClient, bytes, names} }

// speak runs every vector through a new pair of codecs, whole and a byte at a
// time. What comes out must be what went in, as same tells.
func speak(t *testing.T, vectors []vector, codecs func() map[Direction]codec, same func(a, b []byte) bool) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			for _, chunk := range []int{1 << 20, 1} {
				sides := codecs()
				for i, l := range v.lines {
					out, _, messages, err := feed(t, sides[l.dir], []byte(l.bytes), chunk)
					if err != nil || !same(out, []byte(l.bytes)) {
						t.Fatalf("line %d in reads of %d: %q came out as %q, %v", i+1, chunk, l.bytes, out, err)
					}
					if got := sequence(messages); got != l.names {
						t.Errorf("line %d in reads of %d is named\n %s\nwant\n %s", i+1, chunk, got, l.names)
					}
				}
			}
		})
	}
}

// sequence joins the names. Rows and the like are one name for a run of them, as in a
// trace, however they arrive.
func sequence(messages []Message) string {
	var names []string
	for _, m := range messages {
		name := m.Name
		if m.Step {
			name = "*" + name
		}
		switch {
		case m.Name != "row" && m.Name != "copy data" && m.Name != "parameter status":
		case len(names) > 0 && names[len(names)-1] == name:
			continue
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// be returns integers in network byte order.
func be[T uint16 | uint32 | uint64](numbers ...T) string {
	var b []byte
	for _, n := range numbers {
		b, _ = binary.Append(b, binary.BigEndian, n)
	}
	return string(b)
}
