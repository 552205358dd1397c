package wire

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// pgUp is the codec of what a client sends to PostgreSQL.
type pgUp struct {
	s        *pgSession
	begun    bool  // the start-up packet has been framed
	rest     int64 // bytes still to come of the message framed last
	restDrop bool

	// The message framed last, for passed and for the faults.
	kind   byte
	sql    *sqlText
	effect Effect
	block  bool   // in a block after it
	name   []byte // of the statement or portal it makes or closes
	what   byte   // S or P of a Close or Describe
}

func (u *pgUp) next(in []byte, m *Message) (piece, error) {
	if u.rest > 0 {
		n := int(min(u.rest, int64(len(in))))
		u.rest -= int64(n)
		return piece{wait: n == 0, n: n, data: in[:n], drop: u.restDrop}, nil
	}
	if !u.begun {
		return u.startup(in, m)
	}
	f, err := framePG(in)
	if err != nil || f.n == 0 {
		return piece{wait: true}, err
	}
	u.kind, u.sql, u.effect, u.block, u.name = f.kind, nil, NoEffect, u.s.inBlock, nil
	p := piece{n: f.n, data: in[:f.n], msg: true}
	if f.kind == 'd' && f.total == int64(f.n) && !u.s.copyBoth {
		p.n, p.run = framePGRun(in, 'd')
		p.data, f.total = in[:p.n], int64(p.n)
	}
	u.rest, u.restDrop = f.total-int64(p.n), false

	m.Type, m.Size = pgUpTypes[f.kind], f.total
	if m.Type == "" {
		m.Type = fmt.Sprintf("%q", f.kind)
	}
	u.describe(f.body, m)
	m.Effect = u.effect
	return p, nil
}

// startup frames the StartupMessage. Requests for encryption and cancel
// requests never come here.
func (u *pgUp) startup(in []byte, m *Message) (piece, error) {
	n, _, err := framePGStartup(in)
	if err != nil || n == 0 {
		return piece{wait: true}, err
	}
	u.begun, u.kind = true, 0
	m.Type, m.Name, m.Size = "StartupMessage", "start-up", int64(n)
	var detail []string
	for params := in[8:n]; len(params) > 1; {
		var key, value []byte
		key, params = cstring(params)
		value, params = cstring(params)
		switch string(key) {
		case "user", "database", "application_name":
			detail = append(detail, string(key)+"="+string(value))
		case "replication":
			switch strings.ToLower(string(value)) {
			case "false", "off", "no", "0":
			default:
				u.s.replication = true
				m.Name = "start-up for replication"
			}
		}
	}
	m.Detail = clip(strings.Join(detail, " "), u.s.detail)
	return piece{n: n, data: in[:n], msg: true}, nil
}

// describe names the message and finds its effect.
func (u *pgUp) describe(body []byte, m *Message) {
	s := u.s
	switch u.kind {
	case 'Q':
		text, _ := cstring(body)
		u.sql = s.sql.of(text)
		u.effect, u.block = u.sql.simple(s.inBlock)
		m.Name, m.Detail = u.sql.name, u.sql.text
		// Pools ping with an empty query whenever a connection was idle for long:
		// as a step it would shift the numbers of those that matter.
		m.Step = len(u.sql.stmts) > 0
	case 'P':
		name, rest := cstring(body)
		text, _ := cstring(rest)
		u.name, u.sql = name, s.sql.of(text)
		m.Name, m.Detail = "parse "+u.sql.name, u.sql.text
	case 'B':
		portal, rest := cstring(body)
		stmt, _ := cstring(rest)
		u.name, u.sql = portal, s.stmts[string(stmt)]
		m.Name = "bind" + u.ofSQL()
	case 'E':
		portal, _ := cstring(body)
		u.sql = s.portals[string(portal)]
		m.Name, m.Step = "Execute", true
		if u.sql == nil {
			u.effect = Write // for all that is known
			break
		}
		u.effect, u.block = u.sql.extended(s.inBlock)
		m.Name, m.Detail = u.sql.name, u.sql.text
	case 'S':
		m.Name = "sync"
		if s.wrote > 0 && !s.inBlock && !s.skipping && !s.copyNext {
			u.effect, m.Step = Commit, true
			m.Name = clip("sync commits "+s.wroteName, maxNameLen)
			if s.wrote > 1 {
				m.Name = "sync commits " + strconv.Itoa(s.wrote) + " writes"
			}
		}
	case 'D', 'C':
		if len(body) > 0 {
			u.what = body[0]
			u.name, _ = cstring(body[1:])
			known := s.portals
			if u.what == 'S' {
				known = s.stmts
			}
			u.sql = known[string(u.name)]
		}
		m.Name = strings.ToLower(m.Type) + u.ofSQL()
	case 'd':
		m.Name = "copy data"
		if s.copyBoth && len(body) > 0 {
			m.Name, m.Detail = replicationFeedback(body)
		}
	case 'c':
		m.Name, m.Step = "CopyDone", true
		if c := s.copying; c != nil {
			m.Name = c.sql.name + " end"
			switch {
			case c.kind == 'Q' && !s.inBlock:
				u.effect = Commit
			case c.effect != NoEffect:
				u.effect = Write
			}
		}
	case 'f':
		reason, _ := cstring(body)
		m.Name, m.Step, m.Detail = "CopyFail", true, clip(string(reason), s.detail)
	case 'F':
		m.Name, m.Step, u.effect = "FunctionCall", true, Write
		if !s.inBlock {
			u.effect = Commit
		}
	case 'p':
		m.Name = "password" // never in the detail
	default:
		m.Name = strings.ToLower(m.Type)
	}
}

func (u *pgUp) ofSQL() string {
	if u.sql == nil {
		return ""
	}
	return " " + u.sql.name
}

func (u *pgUp) passed() {
	s := u.s
	req := pgRequest{kind: u.kind, sql: u.sql, effect: u.effect}
	switch u.kind {
	case 'Q', 'F':
		s.wrote = 0
		s.inBlock = u.block
		s.sent(req)
	case 'P':
		remember(s.stmts, u.name, u.sql)
		s.sent(req)
	case 'B':
		if u.sql != nil {
			remember(s.portals, u.name, u.sql)
		} else {
			delete(s.portals, string(u.name))
		}
		s.sent(req)
	case 'E':
		if u.effect == Write && !s.inBlock && !s.skipping {
			s.wrote++
			s.wroteName = "Execute"
			if u.sql != nil {
				s.wroteName = u.sql.name
			}
		}
		if !s.skipping {
			s.inBlock = u.block
			s.copyNext = u.sql != nil && u.sql.stmt(0).kind == sqlCopyIn
		}
		if u.effect == Commit || u.effect == Rollback {
			s.wrote = 0
		}
		s.sent(req)
	case 'S':
		if s.copying != nil {
			return // the server ignores it
		}
		if !s.copyNext {
			s.wrote = 0
		}
		s.sent(req)
	case 'C':
		if u.what == 'S' {
			delete(s.stmts, string(u.name))
		} else {
			delete(s.portals, string(u.name))
		}
		s.sent(req)
	case 'D':
		s.sent(req)
	case 'c', 'f':
		s.copying, s.copyNext = nil, false
		if s.copyBoth {
			s.copyBoth = false
		}
	}
}

func (u *pgUp) dropped() { u.restDrop = true }

func (u *pgUp) nack(bool) ([]byte, bool)        { return nil, false }
func (u *pgUp) twin(func(Publishing)) bool      { return false }
func (u *pgUp) refuse() ([]byte, Message, bool) { return nil, Message{}, false }

func (u *pgUp) heartbeat() ([]byte, time.Duration) { return nil, 0 }

// replicationFeedback names what a replication client tells its server.
func replicationFeedback(body []byte) (name, detail string) {
	switch body[0] {
	case 'r':
		if len(body) >= 25 {
			detail = "written " + lsn(body[1:]) + " flushed " + lsn(body[9:]) + " applied " + lsn(body[17:])
		}
		return "standby status", detail
	case 'h':
		return "hot standby feedback", ""
	}
	return "copy data", ""
}

// lsn formats a log position as PostgreSQL does.
func lsn(b []byte) string {
	return fmt.Sprintf("%X/%X", binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]))
}
