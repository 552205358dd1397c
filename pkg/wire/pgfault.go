package wire

import (
	"fmt"
	"regexp"
)

// raise is what the server is told to do in place of a statement that fails.
func raise(code string) string {
	message := map[string]string{
		"40001": "could not serialize access",
		"40P01": "deadlock detected",
		"57014": "canceling statement due to user request",
		"53100": "could not extend file: no space left on device",
		"23505": "duplicate key value violates unique constraint",
	}[code]
	if message == "" {
		message = "the statement failed"
	}
	return fmt.Sprintf("DO $wire$BEGIN RAISE EXCEPTION '%s (raised by a fault)' USING ERRCODE = '%s'; END$wire$", message, code)
}

// sqlState matches what RAISE accepts as a code.
var sqlState = regexp.MustCompile(`^[0-9A-Z]{5}$`)

// fail replaces a Query or an Execute by a statement that raises an error. A
// COMMIT that fails also rolls back, as it does when PostgreSQL finds a reason
// of its own.
func (u *pgUp) fail(code string) ([]byte, bool) {
	s := u.s
	switch {
	case u.kind != 'Q' && u.kind != 'E', s.failed, s.skipping, s.copying != nil:
		return nil, false
	case s.replication && u.effect == NoEffect:
		return nil, false // perhaps a replication command
	case u.effect == Rollback:
		return nil, false // that cannot fail
	}
	if !sqlState.MatchString(code) || code[:2] == "00" {
		code = "40001"
	}
	u.restDrop = true
	switch u.effect {
	case Commit:
		if !s.inBlock {
			break // it is its own transaction
		}
		if u.kind == 'Q' {
			s.inBlock, s.wrote = false, 0
			s.sent(pgRequest{kind: 'Q', sql: u.sql, effect: u.effect, hideTags: 1})
			return pgMessage('Q', append([]byte("ROLLBACK;"+raise(code)), 0)...), true
		}
		out := s.inject("rollback", "ROLLBACK", true)
		s.inBlock, s.wrote = false, 0
		return append(out, u.raiseExtended(code)...), true
	}
	if u.kind == 'Q' {
		s.wrote = 0
		s.sent(pgRequest{kind: 'Q', sql: u.sql, effect: u.effect})
		return pgMessage('Q', append([]byte(raise(code)), 0)...), true
	}
	return u.raiseExtended(code), true
}

func (u *pgUp) raiseExtended(code string) []byte {
	out := u.s.inject("fail_"+code, raise(code), false)
	u.s.queue[len(u.s.queue)-1].effect = u.effect
	return out
}

// inject returns Parse, Bind and Execute of a statement of the proxy's own. It
// is prepared once for each connection, under a name that no client uses.
func (s *pgSession) inject(name, sql string, hide bool) []byte {
	name = "crashcourse_" + name
	var out []byte
	if !s.prepared[name] {
		body := append([]byte(name), 0)
		body = append(append(body, sql...), 0)
		out = append(out, pgMessage('P', append(body, 0, 0)...)...)
		s.sent(pgRequest{kind: 'P', hide: true, prepares: name})
	}
	body := append([]byte{0}, name...)
	out = append(out, pgMessage('B', append(body, 0, 0, 0, 0, 0, 0, 0)...)...)
	s.sent(pgRequest{kind: 'B', hide: true})
	out = append(out, pgMessage('E', 0, 0, 0, 0, 0)...)
	s.sent(pgRequest{kind: 'E', hide: hide})
	return out
}
