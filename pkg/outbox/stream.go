package outbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// confirmInterval is how long the server waits at most to be told of progress.
// What is confirmed later is only looked up in the table again after a crash.
const confirmInterval = 50 * time.Millisecond

// stream reads events from the log into s.captured, and confirms positions. It
// owns the connection: pgconn allows one goroutine at a time.
func (s *session) stream(ctx context.Context) error {
	defer closeSoon(ctx, s.conn)
	st := stream{session: s, heard: time.Now()}
	err := st.run(ctx)
	close(s.captured)
	if ctx.Err() != nil {
		err = nil
	}
	// The last position to confirm is known once all is recorded.
	select {
	case <-s.drained:
	case <-s.r.hard.Done():
	}
	return errors.Join(err, st.confirm(false))
}

// stream is the state of reading the log.
type stream struct {
	*session
	columns map[uint32][]string // of the relations that the server has described
	txn     *txn                // the one that is being read

	sent  time.Time     // when a position was confirmed last
	told  pglogrepl.LSN // which one
	heard time.Time     // when the server has said something
}

func (st *stream) run(ctx context.Context) error {
	// A context for each message would cost more than reading it: the deadline
	// of the socket does as well.
	socket := st.conn.Conn()
	defer context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Now()) })()
	for {
		if err := st.keepInTouch(); err != nil {
			return err
		}
		wait := st.r.o.Heartbeat - time.Since(st.sent)
		if st.progress.busy(st.told) {
			wait = min(wait, confirmInterval)
		}
		if err := socket.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return fmt.Errorf("outbox: read the log: %w", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		raw, err := st.conn.ReceiveMessage(context.Background())
		switch {
		case ctx.Err() != nil:
			return nil
		case pgconn.Timeout(err):
			if silence := time.Since(st.heard); silence > st.r.o.Timeout+st.r.o.Heartbeat {
				return fmt.Errorf("outbox: the database has said nothing for %v: the replication connection counts as lost", silence.Round(time.Second))
			}
			continue
		case err != nil:
			return fmt.Errorf("outbox: read the log: %w", err)
		}
		st.heard = time.Now()
		switch m := raw.(type) {
		case *pgproto3.CopyData:
			if err := st.data(ctx, m.Data); err != nil {
				return err
			}
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("outbox: the server has ended the replication: %w", pgconn.ErrorResponseToPgError(m))
		case *pgproto3.CopyDone:
			return errors.New("outbox: the server has ended the replication")
		}
	}
}

// keepInTouch confirms the position when it is time to.
func (st *stream) keepInTouch() error {
	since := time.Since(st.sent)
	if since >= st.r.o.Heartbeat {
		return st.confirm(true)
	}
	if since >= confirmInterval && st.progress.confirmed() > st.told {
		return st.confirm(false)
	}
	return nil
}

// confirm tells the server up to where all is recorded.
func (st *stream) confirm(reply bool) error {
	lsn := st.progress.confirmed()
	if err := st.conn.Conn().SetWriteDeadline(time.Now().Add(st.r.o.Timeout)); err != nil {
		return fmt.Errorf("outbox: confirm a position in the log: %w", err)
	}
	err := pglogrepl.SendStandbyStatusUpdate(context.Background(), st.conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: lsn, ReplyRequested: reply})
	if err != nil {
		return fmt.Errorf("outbox: confirm a position in the log: %w", err)
	}
	st.sent, st.told = time.Now(), lsn
	return nil
}

func (st *stream) data(ctx context.Context, data []byte) error {
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return fmt.Errorf("outbox: read a keepalive: %w", err)
		}
		// All up to there has been sent. If nothing of it is left to do, the
		// server may recycle it, other tables' changes as well.
		st.progress.skipTo(k.ServerWALEnd)
		if k.ReplyRequested {
			return st.confirm(false)
		}
		return nil
	case pglogrepl.XLogDataByteID:
		x, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return fmt.Errorf("outbox: read the log: %w", err)
		}
		if len(x.WALData) > 0 && x.WALData[0] == byte(pglogrepl.MessageTypeInsert) {
			return st.insert(ctx, x.WALData[1:])
		}
		m, err := pglogrepl.Parse(x.WALData)
		if err != nil {
			return fmt.Errorf("outbox: read the log: %w", err)
		}
		return st.change(ctx, m)
	}
	return nil
}

func (st *stream) change(ctx context.Context, change pglogrepl.Message) error {
	switch c := change.(type) {
	case *pglogrepl.RelationMessage:
		if st.columns == nil {
			st.columns = map[uint32][]string{}
		}
		names := make([]string, len(c.Columns))
		for i, column := range c.Columns {
			names[i] = column.Name
		}
		st.columns[c.RelationID] = names
	case *pglogrepl.BeginMessage:
		st.txn = st.progress.begin(c.Xid, c.FinalLSN)
	case *pglogrepl.CommitMessage:
		st.progress.commit(st.txn, c.TransactionEndLSN)
	}
	return nil
}

// insert takes in a new row of outbox.
func (st *stream) insert(ctx context.Context, data []byte) error {
	m, err := decode(st.columns, data)
	if err != nil {
		return err
	}
	m.txn = st.txn
	st.progress.add(st.txn)
	return st.hand(ctx, m)
}

// hand passes a message on, and keeps in touch while that has to wait.
func (st *stream) hand(ctx context.Context, m *Message) error {
	for {
		timer := time.NewTimer(confirmInterval)
		select {
		case st.captured <- m:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
			if err := st.keepInTouch(); err != nil {
				return err
			}
		}
	}
}

var errMalformed = errors.New("outbox: the log holds a row that cannot be read")

// decode reads a row of outbox, as pgoutput describes it: the relation's number,
// an N, the number of columns, and for each its kind, length and text.
func decode(relations map[uint32][]string, data []byte) (*Message, error) {
	if len(data) < 7 || data[4] != 'N' {
		return nil, errMalformed
	}
	columns, known := relations[binary.BigEndian.Uint32(data)]
	if n := int(binary.BigEndian.Uint16(data[5:])); !known || n != len(columns) {
		return nil, fmt.Errorf("%w: it has %d columns, %d were announced", errMalformed, n, len(columns))
	}
	data = data[7:]
	var m Message
	for _, name := range columns {
		if len(data) == 0 {
			return nil, errMalformed
		}
		kind := data[0]
		data = data[1:]
		if kind != 't' { // NULL
			continue
		}
		if len(data) < 4 || len(data)-4 < int(binary.BigEndian.Uint32(data)) {
			return nil, errMalformed
		}
		end := 4 + int(binary.BigEndian.Uint32(data))
		text := data[4:end]
		data = data[end:]
		var err error
		switch name {
		case "seq":
			m.Seq, err = strconv.ParseInt(string(text), 10, 64)
		case "message_id":
			m.ID, err = uuid.ParseBytes(text)
		case "aggregate_id":
			m.AggregateID = string(text)
		case "type":
			m.Type = string(text)
		case "payload":
			m.Payload = bytes.Clone(text) // the buffer is used again
		case "created_at":
			m.CreatedAt, err = time.Parse("2006-01-02 15:04:05.999999-07", string(text))
		}
		if err != nil {
			return nil, fmt.Errorf("%w: its %s is %q: %w", errMalformed, name, text, err)
		}
	}
	return &m, nil
}

// txn is a transaction in the log.
type txn struct {
	xid   uint32
	final pglogrepl.LSN // of its commit
	end   pglogrepl.LSN // behind it; 0 until all of it has been read
	left  int           // events that are not recorded yet
}

// progress knows up to where in the log all is recorded.
type progress struct {
	mu   sync.Mutex
	open []*txn // in the order of the log; the first is not done
	done pglogrepl.LSN
}

func (p *progress) begin(xid uint32, final pglogrepl.LSN) *txn {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &txn{xid: xid, final: final}
	p.open = append(p.open, t)
	return t
}

func (p *progress) add(t *txn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.left++
}

func (p *progress) commit(t *txn, end pglogrepl.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.end = end
	p.advance()
}

// recorded takes note that events of these transactions are recorded, one for
// each mention.
func (p *progress) recorded(ts ...*txn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range ts {
		t.left--
	}
	p.advance()
}

func (p *progress) advance() {
	for len(p.open) > 0 && p.open[0].end != 0 && p.open[0].left == 0 {
		p.done = max(p.done, p.open[0].end)
		p.open = p.open[1:]
	}
}

// skipTo takes note that there is nothing to do up to lsn but what is open.
func (p *progress) skipTo(lsn pglogrepl.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.open) == 0 {
		p.done = max(p.done, lsn)
	}
}

func (p *progress) confirmed() pglogrepl.LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// busy tells that there will soon be a position to confirm behind told.
func (p *progress) busy(told pglogrepl.LSN) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open) > 0 || p.done > told
}

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
