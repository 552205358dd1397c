package wire

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// clip returns s as valid UTF-8 of at most max bytes.
func clip(s string, max int) string {
	const dots = "…"
	if len(s) <= max && utf8.ValidString(s) {
		return s
	}
	if len(s) > max {
		if max < len(dots) {
			return ""
		}
		cut := max - len(dots)
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + dots
	}
	if utf8.ValidString(s) {
		return s
	}
	// A replacement of one byte keeps the length within max.
	return strings.ToValidUTF8(s, "?")
}

// describeBody returns the start of a body that is text, and else its size.
// head is what has arrived of it, total its whole size.
func describeBody(head []byte, total uint64, max int) string {
	if len(head) > max+utf8.UTFMax {
		head = head[:max+utf8.UTFMax]
	}
	if !isText(head, uint64(len(head)) < total) {
		return fmt.Sprintf("<%d bytes>", total)
	}
	for n := len(head); n > 0 && n > len(head)-utf8.UTFMax; n-- {
		if utf8.RuneStart(head[n-1]) {
			if !utf8.FullRune(head[n-1:]) {
				head = head[:n-1] // the rest of this rune has not arrived
			}
			break
		}
	}
	return clip(string(head), max)
}

// isText tells whether b is readable text. When more follows, the last rune
// may be incomplete.
func isText(b []byte, more bool) bool {
	for len(b) > 0 {
		c := b[0]
		if c < utf8.RuneSelf {
			if c < ' ' && c != '\n' && c != '\t' && c != '\r' || c == 0x7f {
				return false
			}
			b = b[1:]
			continue
		}
		if more && !utf8.FullRune(b) {
			return true
		}
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			return false
		}
		b = b[n:]
	}
	return true
}
