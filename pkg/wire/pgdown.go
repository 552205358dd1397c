package wire

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// pgDown is the codec of what PostgreSQL sends to its client.
type pgDown struct {
	s        *pgSession
	restDrop bool
}

func (d *pgDown) next(in []byte, m *Message) (piece, error) {
	s := d.s
	if s.downRest > 0 {
		n := int(min(s.downRest, int64(len(in))))
		s.downRest -= int64(n)
		return piece{wait: n == 0, n: n, data: in[:n], drop: d.restDrop}, nil
	}
	f, err := framePG(in)
	if err != nil || f.n == 0 {
		return piece{wait: true}, err
	}
	p := piece{n: f.n, data: in[:f.n], msg: true}
	switch f.kind {
	case 'D', 'S', 'd':
		if f.kind == 'd' && s.copyBoth || f.total != int64(f.n) {
			break
		}
		p.n, p.run = framePGRun(in, f.kind)
		p.data, f.total = in[:p.n], int64(p.n)
	}
	s.downRest, d.restDrop = f.total-int64(p.n), false

	m.Type, m.Size = pgDownTypes[f.kind], f.total
	if m.Type == "" {
		m.Type = fmt.Sprintf("%q", f.kind)
	}
	if hide := d.describe(f.kind, f.body, m); hide {
		p.msg, p.drop, p.run = false, true, 0
		d.restDrop = true
	}
	return p, nil
}

// describe names the message, matches it with the request that it answers, and
// tells whether it answers the proxy alone. An answer takes effect when it
// arrives: the server has done what it says, whether the client hears or not.
func (d *pgDown) describe(kind byte, body []byte, m *Message) (hide bool) {
	s := d.s
	switch kind {
	case '1':
		hide = s.completed('P')
	case '2':
		hide = s.completed('B')
	case '3':
		hide = s.completed('C')
	case 'T', 'n':
		hide = s.completed('D')
	case 'C', 'I', 's':
		r, ok := s.finished()
		tag, _ := cstring(body)
		m.Step, m.Detail = kind != 'I', clip(string(tag), s.detail)
		m.Name, m.Effect = answerName(r, ok, string(tag))
		s.copying = nil
		switch kind {
		case 'C':
			return r.hideTags > 0 || r.hide
		case 's':
			m.Name = strings.TrimSuffix(m.Name, " done") + " suspended"
		}
		return false
	case 'V':
		m.Name, m.Step, m.Effect = "FunctionCall done", true, Done
		return false
	case 'E', 'N':
		fields := pgFields(body)
		m.Name = clip(strings.TrimSpace(fields['S']+" "+fields['C']+" "+fields['M']), maxNameLen)
		if m.Name == "" {
			m.Name = spaced(m.Type)
		}
		m.Detail = clip(strings.TrimSpace(fields['M']+"\n"+fields['D']), s.detail)
		if kind == 'N' {
			return false
		}
		m.Step = s.started
		if r, ok := s.erred(); ok && r.effect != NoEffect {
			m.Effect = Done
		}
		return false
	case 'A':
		m.Name, m.Step = "notification", true
		if len(body) > 4 {
			channel, rest := cstring(body[4:])
			payload, _ := cstring(rest)
			m.Name = clip("notification "+string(channel), maxNameLen)
			m.Detail = clip(string(payload), s.detail)
		}
		return false
	case 'Z':
		status := byte('I')
		if len(body) > 0 {
			status = body[0]
		}
		s.ready(status)
		m.Name = map[byte]string{'T': "ready in transaction", 'E': "ready in failed transaction"}[status]
		if m.Name == "" {
			m.Name = "ready"
		}
		return false
	case 'G', 'H', 'W':
		if kind == 'W' {
			s.copyBoth = true
		}
		if r, ok := s.pending(); ok && kind == 'G' {
			s.copyIn(r)
		}
	case 'D':
		m.Name = "row"
		return false
	case 'd':
		m.Name = "copy data"
		if s.copyBoth && len(body) > 0 {
			m.Name, m.Detail = replicationData(body)
		}
		return false
	case 'c':
		s.copyBoth = false
	}
	m.Name = spaced(m.Type)
	return hide
}

// pending returns the request that the server is working on.
func (s *pgSession) pending() (pgRequest, bool) {
	for _, r := range s.queue {
		if (r.kind == 'E' || r.kind == 'Q') && r.sql != nil {
			return r, true
		}
	}
	return pgRequest{}, false
}

// answerName names the end of a statement after its request.
func answerName(r pgRequest, ok bool, tag string) (string, Effect) {
	if !ok || r.sql == nil {
		if tag == "" {
			tag = "statement"
		}
		return clip(tag, maxNameLen) + " done", r.doneEffect()
	}
	stmt := r.sql.stmt(r.answered)
	if stmt.kind == sqlCommit && tag == "ROLLBACK" {
		return "COMMIT rolled back", Done
	}
	effect := NoEffect
	switch stmt.kind {
	case sqlRead, sqlBegin:
	default:
		effect = Done
	}
	return stmt.name + " done", effect
}

func (r pgRequest) doneEffect() Effect {
	if r.effect == NoEffect {
		return NoEffect
	}
	return Done
}

func (d *pgDown) passed()                            {}
func (d *pgDown) dropped()                           { d.restDrop = true }
func (d *pgDown) nack(bool) ([]byte, bool)           { return nil, false }
func (d *pgDown) fail(string) ([]byte, bool)         { return nil, false }
func (d *pgDown) twin(func(Publishing)) bool         { return false }
func (d *pgDown) refuse() ([]byte, Message, bool)    { return nil, Message{}, false }
func (d *pgDown) heartbeat() ([]byte, time.Duration) { return nil, 0 }

// spaced turns "BindComplete" into "bind complete".
func spaced(camel string) string {
	var b strings.Builder
	for i, r := range camel {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte(' ')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// replicationData names what a replication server sends. Of the pgoutput
// plugin's messages the kind is told.
func replicationData(body []byte) (name, detail string) {
	switch body[0] {
	case 'k':
		if len(body) >= 9 {
			detail = "at " + lsn(body[1:])
		}
		return "keepalive", detail
	case 'w':
		if len(body) < 26 {
			return "wal", ""
		}
		detail = "at " + lsn(body[1:]) + ", " + strconv.Itoa(len(body)-25) + " bytes"
		kinds := map[byte]string{
			'B': "begin", 'C': "commit", 'I': "insert", 'U': "update", 'D': "delete", 'T': "truncate",
			'R': "relation", 'Y': "type", 'O': "origin", 'M': "message",
			// Of transactions in progress, and of those in two phases.
			'S': "stream start", 'E': "stream stop", 'c': "stream commit", 'A': "stream abort", 'p': "stream prepare",
			'b': "begin prepare", 'P': "prepare", 'K': "commit prepared", 'r': "rollback prepared",
		}
		if kind := kinds[body[25]]; kind != "" {
			return "wal " + kind, detail
		}
		return "wal", detail
	}
	return "copy data", ""
}
