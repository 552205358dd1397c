package step

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"
)

// CellText is how a value of PostgreSQL's text format is shown: a UUID is cut to
// its end, a time to its time of day, what is long to its beginning.
func CellText(oid uint32, v []byte) string {
	s := string(v)
	switch {
	case v == nil:
		return "NULL"
	case oid == pgtype.UUIDOID:
		return ShortID(s)
	case (oid == pgtype.TimestamptzOID || oid == pgtype.TimestampOID) && len(s) >= 19:
		return strings.TrimSuffix(s[11:min(len(s), 23)], "+")
	case oid == pgtype.BoolOID && s == "t":
		return "true"
	case oid == pgtype.BoolOID && s == "f":
		return "false"
	}
	return Shorten(s, 120)
}

// ShortID is the end of a UUID: those made in the same minute begin alike.
func ShortID(s string) string {
	if len(s) != 36 {
		return Shorten(s, 40)
	}
	return "…" + s[30:]
}

// Shorten makes one line of at most n characters of s.
func Shorten(s string, n int) string {
	if !utf8.ValidString(s) {
		return fmt.Sprintf("<%d bytes>", len(s))
	}
	r := []rune(strings.Join(strings.Fields(s), " "))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:n-1]) + "…"
}
