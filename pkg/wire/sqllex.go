package wire

import "strings"

// sqlToken is one token of SQL.
type sqlToken struct {
	kind  byte // one of the tok constants
	text  string
	depth int // of parentheses around it
	pos   int // where it starts
	end   int // and ends
}

const (
	tokWord   = 'w' // keyword or bare identifier, in lower case
	tokQuoted = 'q' // quoted identifier, without its quotes
	tokString = 's'
	tokNumber = 'n'
	tokParam  = 'p' // $1
	tokPunct  = '.' // one byte of anything else
)

// maxTokens bounds what is looked at of one statement. What follows is only
// searched for the statement's end.
const maxTokens = 4096

// sqlLexer splits SQL into tokens. It follows PostgreSQL's rules for comments,
// strings, dollar quotes and quoted identifiers, and never fails: what is not
// closed ends with the text.
type sqlLexer struct {
	sql   string
	pos   int
	depth int
}

func (l *sqlLexer) next() (sqlToken, bool) {
	l.skipBlank()
	if l.pos >= len(l.sql) {
		return sqlToken{}, false
	}
	t := l.token()
	t.end = min(l.pos, len(l.sql))
	l.pos = t.end
	return t, true
}

func (l *sqlLexer) token() sqlToken {
	start, c := l.pos, l.sql[l.pos]
	t := sqlToken{depth: l.depth, pos: start}
	switch {
	case c == '\'':
		t.kind = tokString
		l.quoted('\'', false)
	case (c == 'e' || c == 'E') && strings.HasPrefix(l.sql[start+1:], "'"):
		t.kind = tokString
		l.pos++
		l.quoted('\'', true)
	case c == '"':
		t.kind = tokQuoted
		l.quoted('"', false)
		t.text = strings.ReplaceAll(strings.Trim(l.sql[start:l.pos], `"`), `""`, `"`)
		return t
	case c == '$' && l.dollarQuoted():
		t.kind = tokString
	case c == '$':
		t.kind = tokParam
		l.pos++
		l.while(isDigit)
	case isDigit(c):
		t.kind = tokNumber
		l.while(func(c byte) bool { return isDigit(c) || isLetter(c) || c == '.' })
	case isLetter(c):
		t.kind = tokWord
		l.while(func(c byte) bool { return isLetter(c) || isDigit(c) || c == '$' })
		t.text = strings.ToLower(l.sql[start:l.pos])
		return t
	default:
		t.kind = tokPunct
		l.pos++
		switch c {
		case '(':
			l.depth++
		case ')':
			if l.depth > 0 {
				l.depth--
			}
			t.depth = l.depth
		}
	}
	t.text = l.sql[start:min(l.pos, len(l.sql))]
	return t
}

func (l *sqlLexer) skipBlank() {
	for l.pos < len(l.sql) {
		rest := l.sql[l.pos:]
		switch {
		case rest[0] <= ' ':
			l.pos++
		case strings.HasPrefix(rest, "--"):
			if i := strings.IndexByte(rest, '\n'); i >= 0 {
				l.pos += i + 1
			} else {
				l.pos = len(l.sql)
			}
		case strings.HasPrefix(rest, "/*"):
			l.comment()
		default:
			return
		}
	}
}

// comment skips a block comment; PostgreSQL's nest.
func (l *sqlLexer) comment() {
	for level := 0; l.pos < len(l.sql); {
		rest := l.sql[l.pos:]
		switch {
		case strings.HasPrefix(rest, "/*"):
			level++
			l.pos += 2
		case strings.HasPrefix(rest, "*/"):
			level--
			l.pos += 2
			if level == 0 {
				return
			}
		default:
			l.pos++
		}
	}
}

// quoted skips what stands in quotes; a doubled quote is one of its content.
func (l *sqlLexer) quoted(quote byte, escapes bool) {
	for l.pos++; l.pos < len(l.sql); l.pos++ {
		switch c := l.sql[l.pos]; {
		case c == '\\' && escapes:
			l.pos++
		case c == quote:
			if l.pos+1 < len(l.sql) && l.sql[l.pos+1] == quote {
				l.pos++
				continue
			}
			l.pos++
			return
		}
	}
	l.pos = len(l.sql)
}

// dollarQuoted skips $tag$…$tag$, if that is what stands here.
func (l *sqlLexer) dollarQuoted() bool {
	rest := l.sql[l.pos:]
	end := 1
	for end < len(rest) && (isLetter(rest[end]) || end > 1 && isDigit(rest[end])) {
		end++
	}
	if end >= len(rest) || rest[end] != '$' {
		return false
	}
	tag := rest[:end+1]
	if i := strings.Index(rest[len(tag):], tag); i >= 0 {
		l.pos += len(tag) + i + len(tag)
	} else {
		l.pos = len(l.sql)
	}
	return true
}

func (l *sqlLexer) while(ok func(byte) bool) {
	for l.pos < len(l.sql) && ok(l.sql[l.pos]) {
		l.pos++
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}
