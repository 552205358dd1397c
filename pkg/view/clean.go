package view

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// What a report shows was partly written by the answer under test: table rows,
// SQL, names, output. None of it may move the cursor, turn the direction of the
// text, hide itself or grow without bound.

// maxMarks is how many combining marks may sit on one letter; more is a way to
// scribble over the lines around it.
const maxMarks = 3

// line makes one printable line of s, of at most max characters.
func line(s string, max int) string {
	var b strings.Builder
	runes, marks, space := 0, 0, false
	for i, r := range s {
		switch {
		case r == '\n' || r == '\r' || r == '\t' || r == '\u2028' || r == '\u2029' || unicode.IsSpace(r):
			if b.Len() == 0 || space {
				continue
			}
			space, r, marks = true, ' ', 0
		case unicode.Is(unicode.M, r):
			if marks++; marks > maxMarks {
				continue
			}
			space = false
		default:
			space, marks = false, 0
		}
		if runes++; runes > max {
			if strings.TrimSpace(s[i:]) == "" {
				break
			}
			return cutEnd(b.String())
		}
		b.WriteRune(printable(r))
	}
	return strings.TrimRight(b.String(), " ")
}

// cutEnd puts an ellipsis in place of the last character, and of the marks on it.
func cutEnd(s string) string {
	for {
		r, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
		if n == 0 || !unicode.Is(unicode.M, r) && r != '\u200d' {
			return s + "…"
		}
	}
}

// printable stands in for a character that acts instead of showing.
func printable(r rune) rune {
	switch {
	case r < 0x20:
		return 0x2400 + r // the picture of a control character
	case r == 0x7f:
		return 0x2421
	case r == '\u200d' || r == '\u200c': // joiners: emoji and some scripts need them
		return r
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Cs, unicode.Co, unicode.Zl, unicode.Zp):
		return utf8.RuneError
	}
	return r
}

var ansi = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\))`)

// block makes printable lines of s. It keeps the end when tail is set, else the
// beginning, and returns how many lines were left out.
func block(s string, maxLines, maxWidth int, tail bool) (lines []string, left int) {
	// Cut before looking closely: an answer can print for hours.
	if room := maxLines * maxWidth * utf8.UTFMax; len(s) > room {
		if tail {
			left, s = strings.Count(s[:len(s)-room], "\n"), s[len(s)-room:]
		} else {
			left, s = strings.Count(s[room:], "\n"), s[:room]
		}
		left++
	}
	s = ansi.ReplaceAllString(strings.ReplaceAll(s, "\r\n", "\n"), "")
	all := strings.Split(strings.Trim(s, "\n"), "\n")
	if len(all) == 1 && strings.TrimSpace(all[0]) == "" {
		return nil, left
	}
	if over := len(all) - maxLines; over > 0 {
		left += over
		if tail {
			all = all[over:]
		} else {
			all = all[:maxLines]
		}
	}
	for _, l := range all {
		l = strings.TrimRight(strings.ReplaceAll(l, "\t", "    "), " ")
		indent := len(l) - len(strings.TrimLeft(l, " "))
		indent = min(indent, maxWidth/2)
		lines = append(lines, strings.Repeat(" ", indent)+line(l, maxWidth))
	}
	return lines, left
}

func width(s string) int { return uniseg.StringWidth(s) }

// fit cuts s to n columns of a terminal.
func fit(s string, n int) string {
	if width(s) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	var b strings.Builder
	used := 0
	for g := uniseg.NewGraphemes(s); g.Next(); {
		if used+g.Width() > n-1 {
			break
		}
		used += g.Width()
		b.WriteString(g.Str())
	}
	return b.String() + "…"
}

// pad fills s up to n columns of a terminal.
func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(0, n-width(s)))
}

// wrap breaks s between words into lines of at most n columns. A word that is
// longer is broken too.
func wrap(s string, n int) []string {
	n = max(n, 8)
	var out []string
	var b strings.Builder
	used := 0
	flush := func() {
		if b.Len() > 0 {
			out = append(out, b.String())
			b.Reset()
			used = 0
		}
	}
	for _, word := range strings.Fields(s) {
		w := width(word)
		if used > 0 && used+1+w > n {
			flush()
		}
		if used > 0 {
			b.WriteByte(' ')
			used++
		}
		if used+w <= n {
			b.WriteString(word)
			used += w
			continue
		}
		for g := uniseg.NewGraphemes(word); g.Next(); {
			if used+g.Width() > n {
				flush()
			}
			b.WriteString(g.Str())
			used += g.Width()
		}
	}
	flush()
	return out
}
