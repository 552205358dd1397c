package stage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"

	"github.com/google/uuid"
)

// UUID returns a version 4 UUID that rng decides.
func UUID(rng *rand.Rand) uuid.UUID {
	var b [16]byte
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return b
}

// SameJSON says whether a and b are the same JSON value, to the last digit.
func SameJSON(a, b []byte) bool {
	x, ok := exactJSON(a)
	y, ok2 := exactJSON(b)
	return ok && ok2 && reflect.DeepEqual(x, y)
}

// exactJSON reads one JSON value without rounding its numbers.
func exactJSON(b []byte) (v any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil, false
	}
	_, err := d.Token()
	return v, err == io.EOF
}

// Short returns the begin of an id, as reports show it.
func Short(id string) string { return Clip(id, 8) }

// Clip cuts s to at most n bytes, and says so by an ellipsis.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// Count says how many: "1 message", "3 messages".
func Count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprint(n, " ", what)
}

// Letter names a small number: 0 is A.
func Letter(n int) string { return string(rune('A' + n)) }
