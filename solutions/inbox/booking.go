package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
)

const (
	queueName = "payments"
	deadName  = "dead"
	myName    = "payments" // the answer's in the table inbox

	// lostAfter is how long a message may be nowhere: not in the queue, not in
	// hand, not booked, not parked.
	lostAfter = time.Second

	// lookEvery bounds how often both servers are asked how far the work is.
	lookEvery = 8 * time.Millisecond

	// stuckAfter is how long a process may live without a connection to the
	// broker. The contract says two seconds.
	stuckAfter = 3 * time.Second
)

// booking is the scenario of all exercises: payments wait in a queue, some of them
// twice; when they are booked, some come once more.
type booking struct {
	crash.Quiet
	arena    *crash.Arena
	accounts []string
	payments []*payment
	inOrder  bool // the payments of an account have to be booked as they came
	thrifty  bool // in few transactions
	acks     bool // the answer acknowledges itself
	lock     int  // how many accounts somebody else has locked

	queue  *stage.Queue
	dead   *stage.Listener
	hands  stage.Hands
	locker pgx.Tx
	second bool   // the second wave has been sent
	stuck  int    // a process that lives on without a connection to the broker
	left   int    // messages in the queue after the processes were stopped
	half   string // a payment of which one half was found to be done

	rows  []row
	ready int
	moved time.Time // when any of it last changed
	seen  time.Time // when Done last looked
	done  bool      // what it saw
	mark  string
}

// payment is a message, and what has to become of it.
type payment struct {
	n       int // from 1
	id      string
	account int
	cents   int64
	body    string // if it is no payment
	poison  string // why it can never be booked; empty if it can
	twin    bool   // sent twice, one right behind the other
	again   bool   // sent once more when all is done
	late    bool   // part of the second wave
}

// row is a row of the ledger.
type row struct {
	account string
	cents   int64
	tx      int64
}

func newBooking(a *crash.Arena, rng *rand.Rand, accounts int) *booking {
	s := &booking{arena: a}
	for i := range accounts {
		s.accounts = append(s.accounts, strings.ToLower(stage.Letter(i))+"-"+stage.UUID(rng).String()[:8])
	}
	return s
}

func (s *booking) put(p payment) { s.payments = append(s.payments, &p) }

// add adds payments, the first ones to different accounts.
func (s *booking) add(rng *rand.Rand, n int) {
	for i := range n {
		s.put(payment{id: stage.UUID(rng).String(), account: i % len(s.accounts), cents: int64(1000*(i+1) + rng.IntN(1000))})
	}
}

// twist adds what goes wrong with messages: two that are alike but for the case of
// their IDs, one that is sent twice, two that come again, a sum that no float64
// holds, and a late one.
func (s *booking) twist(rng *rand.Rand) {
	alike := *s.payments[3]
	alike.id = strings.ToUpper(alike.id)
	s.payments[4].cents = 1<<53 + 1
	s.payments[0].again, s.payments[1].again = true, true
	s.payments[2].twin = true
	s.put(alike)
	s.put(payment{id: stage.UUID(rng).String(), account: 1, cents: int64(500 + rng.IntN(400)), late: true})
}

// poison inserts messages that can never be booked, from place at on.
func (s *booking) poison(rng *rand.Rand, at int) {
	s.payments = slices.Insert(s.payments, at,
		&payment{id: stage.UUID(rng).String(), account: 0, cents: 75, body: fmt.Sprintf(`{"account":%q,"cents":75}{"acc`, s.accounts[0]), poison: "a body that is no JSON"},
		&payment{id: stage.UUID(rng).String(), account: 0, cents: 76, body: fmt.Sprintf(`{"account":%q,"cents":76.5}`, s.accounts[0]), poison: "half a cent in it"},
		&payment{id: "", account: 1, cents: 78, poison: "no message ID"},
		&payment{id: stage.UUID(rng).String(), account: -1, cents: 79, poison: "an account that does not exist"})
}

func (s *booking) accountOf(p *payment) string {
	if p.account < 0 {
		return "nobody"
	}
	return s.accounts[p.account]
}

func (s *booking) message(p *payment) amqp.Publishing {
	body := p.body
	if body == "" {
		b, _ := json.Marshal(map[string]any{"account": s.accountOf(p), "cents": p.cents}) // of strings and integers
		body = string(b)
	}
	return amqp.Publishing{MessageId: p.id, ContentType: "application/json", Body: []byte(body), Timestamp: time.Now()}
}

func (s *booking) Close() {
	s.unlock(context.Background())
	if s.queue != nil {
		s.queue.Close()
	}
	if s.dead != nil {
		s.dead.Close()
	}
}

// Reset makes the accounts, lets an audit service have handled what waits, and
// fills the queue.
func (s *booking) Reset(ctx context.Context) (err error) {
	for i, p := range s.payments {
		p.n = i + 1
	}
	if _, err := s.arena.DB.Exec(ctx, "DELETE FROM public.ledger; DELETE FROM public.accounts; DELETE FROM public.inbox"); err != nil {
		return fmt.Errorf("empty the tables: %w", err)
	}
	if _, err := s.arena.DB.Exec(ctx, "INSERT INTO public.accounts (id) SELECT unnest($1::text[])", s.accounts); err != nil {
		return fmt.Errorf("make the accounts: %w", err)
	}
	var wave []amqp.Publishing
	var audited []string
	for _, p := range s.payments {
		if p.id != "" {
			audited = append(audited, p.id)
		}
		if p.late {
			continue
		}
		wave = append(wave, s.message(p))
		if p.twin {
			wave = append(wave, s.message(p))
		}
	}
	if _, err := s.arena.DB.Exec(ctx, "INSERT INTO public.inbox (consumer, message_id) SELECT 'audit', unnest($1::text[])", audited); err != nil {
		return fmt.Errorf("let the audit have handled the messages: %w", err)
	}
	if s.lock > 0 {
		if s.locker, err = s.arena.DB.Begin(ctx); err != nil {
			return fmt.Errorf("lock accounts: %w", err)
		}
		if _, err := s.locker.Exec(ctx, "SELECT FROM public.accounts WHERE id = ANY ($1) FOR UPDATE", s.accounts[:s.lock]); err != nil {
			return fmt.Errorf("lock accounts: %w", err)
		}
	}
	if s.dead, err = stage.Listen(s.arena.Conn, deadName, "#"); err != nil {
		return err
	}
	if s.queue, err = stage.NewQueue(s.arena.Conn, queueName, amqp.Table{"x-dead-letter-exchange": deadName}); err != nil {
		return err
	}
	s.moved = time.Now()
	if err := s.queue.Send(ctx, wave...); err != nil {
		return err
	}
	return s.queue.Touch(2) // a delivery that is marked as redelivered may be the first all the same
}

func (s *booking) unlock(ctx context.Context) {
	if s.locker != nil {
		_ = s.locker.Rollback(ctx) // or the session is lost, and the lock with it
		s.locker = nil
	}
}

func (s *booking) Started(_ context.Context, p *crash.Process) error {
	return p.Send(crash.Call{ID: 1, Last: true})
}

func (s *booking) Ended(ctx context.Context, p *crash.Process) error {
	s.hands.Look(s.arena.Since)
	s.hands.Ended(p.N)
	s.moved = time.Now()
	return s.lookForHalves(ctx)
}

// lookForHalves compares balances and ledger in one look. Both halves of a payment
// are done in one transaction, so that they agree at any time.
func (s *booking) lookForHalves(ctx context.Context) error {
	if s.half != "" {
		return nil
	}
	rows, err := s.arena.DB.Query(ctx, `SELECT a.id, a.balance_cents, coalesce(sum(l.cents), 0)::bigint
		FROM public.accounts a LEFT JOIN public.ledger l ON l.account_id = a.id
		GROUP BY a.id HAVING a.balance_cents <> coalesce(sum(l.cents), 0)`)
	if err != nil {
		return fmt.Errorf("compare balances and ledger: %w", err)
	}
	var id string
	var balance, sum int64
	_, err = pgx.ForEachRow(rows, []any{&id, &balance, &sum}, func() error {
		s.half = fmt.Sprintf("when the process had ended, the balance of account %s was %d cents, and its ledger added up to %d", s.name(id), balance, sum)
		return nil
	})
	if err != nil {
		return fmt.Errorf("compare balances and ledger: %w", err)
	}
	return nil
}

// Delayed is called when one process is held back: whoever sent the messages is
// not sure that they arrived, and sends them again. The other process gets them.
func (s *booking) Delayed(ctx context.Context) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	var wave []amqp.Publishing
	for _, p := range s.payments {
		if p.poison == "" && !p.late && s.hands.Holds(p.id) > 0 {
			wave = append(wave, s.message(p))
		}
	}
	return s.queue.Send(ctx, wave...)
}

// look reads what there is to see.
func (s *booking) look(ctx context.Context) error {
	s.hands.Look(s.arena.Since)
	if err := s.dead.Lost(); err != nil {
		return err
	}
	rows, err := s.arena.DB.Query(ctx, "SELECT account_id, cents, tx::text::bigint FROM public.ledger ORDER BY seq")
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	if s.rows, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (o row, err error) {
		return o, r.Scan(&o.account, &o.cents, &o.tx)
	}); err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	if s.ready, err = s.queue.Ready(); err != nil {
		return err
	}
	if mark := fmt.Sprint(len(s.rows), s.ready, s.hands.All(), len(s.dead.Arrived())); mark != s.mark {
		s.mark, s.moved = mark, time.Now()
	}
	return nil
}

// sent says whether a payment has been sent so far.
func (s *booking) sent(p *payment) bool { return !p.late || s.second }

// bookedAs is the first payment that a row of the ledger can be of, or nil.
func (s *booking) bookedAs(r row) *payment {
	i := slices.IndexFunc(s.payments, func(p *payment) bool { return s.accountOf(p) == r.account && p.cents == r.cents })
	if i < 0 {
		return nil
	}
	return s.payments[i]
}

// times counts the ledger's rows of payments that are alike.
func (s *booking) times(p *payment) (n int) {
	for _, r := range s.rows {
		if r.account == s.accountOf(p) && r.cents == p.cents {
			n++
		}
	}
	return n
}

// alike are the payments that the ledger does not tell from p, p among them, as
// far as they have been sent.
func (s *booking) alike(p *payment) (out []*payment) {
	for _, x := range s.payments {
		if x.poison == "" && x.account == p.account && x.cents == p.cents && s.sent(x) {
			out = append(out, x)
		}
	}
	return out
}

// parked says whether a message is among the dead letters.
func (s *booking) parked(p *payment) bool {
	return slices.ContainsFunc(s.dead.Arrived(), func(d amqp.Delivery) bool { return s.is(d, p) })
}

// is says whether a message is p's.
func (s *booking) is(d amqp.Delivery, p *payment) bool {
	return d.MessageId == p.id && (p.id != "" || string(d.Body) == string(s.message(p).Body))
}

// dealt says whether a message has come where it belongs.
func (s *booking) dealt(p *payment) bool {
	if p.poison != "" {
		return s.parked(p)
	}
	return s.times(p) >= len(s.alike(p))
}

// gone says whether a message is nowhere any more: it can no longer be dealt with.
func (s *booking) gone(p *payment) bool {
	return s.ready == 0 && s.hands.Holds(p.id) == 0 && time.Since(s.moved) > lostAfter
}

func (s *booking) Done(ctx context.Context) (bool, error) {
	// A look asks both servers, and every message on the wires leads here.
	if time.Since(s.seen) < lookEvery {
		return s.done, nil
	}
	var err error
	s.done, err = s.isDone(ctx)
	s.seen = time.Now()
	return s.done, err
}

func (s *booking) isDone(ctx context.Context) (bool, error) {
	if err := s.look(ctx); err != nil {
		return false, err
	}
	if s.locker != nil {
		for _, p := range s.payments {
			if p.poison == "" && !p.late && p.account >= s.lock && !s.dealt(p) {
				return false, nil
			}
		}
		s.unlock(ctx)
	}
	for _, p := range s.payments {
		if s.sent(p) && !s.dealt(p) && !s.gone(p) {
			return false, nil
		}
	}
	if s.second {
		return s.ready == 0 && s.hands.All() == 0 && s.connected(), nil
	}
	// A year later some of it comes once more, and something new behind it.
	if passed, err := s.passYear(ctx); !passed {
		return false, err
	}
	s.second = true
	var wave []amqp.Publishing
	for _, again := range []bool{true, false} {
		for _, p := range s.payments {
			if again && p.again || !again && p.late {
				wave = append(wave, s.message(p))
			}
		}
	}
	return false, s.queue.Send(ctx, wave...)
}

// passYear makes what is in the table inbox a year older. It has not passed where a
// process that is held back has locked the table.
func (s *booking) passYear(ctx context.Context) (passed bool, err error) {
	err = pgx.BeginFunc(ctx, s.arena.DB, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '100ms'"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE public.inbox SET handled_at = handled_at - interval '1 year'
			WHERE ctid IN (SELECT ctid FROM public.inbox FOR UPDATE SKIP LOCKED)`)
		return err
	})
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == "55P03" /* lock_not_available */ {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("let a year pass: %w", err)
	}
	return true, nil
}

// connected waits until each process that lost its connection has ended, made a
// new one, or been without for too long: the other process hides that it is stuck.
func (s *booking) connected() bool {
	for p, since := range s.hands.CutOff() {
		if time.Since(since) < stuckAfter {
			return false
		}
		s.stuck = p
	}
	return true
}

func (s *booking) Progress() (n int) {
	for _, p := range s.payments {
		if s.dealt(p) {
			n++
		}
		if s.hands.Of(p.id).Acked > 0 {
			n++
		}
	}
	return n
}

func (s *booking) State(ctx context.Context) (string, error) {
	if err := s.look(ctx); err != nil {
		return "", err
	}
	known, err := s.remembered(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v %d %s", s.second, s.ready, s.half)
	for _, p := range s.payments {
		o := s.hands.Of(p.id)
		fmt.Fprintf(&b, " %d%d%v%v", s.times(p), o.Acked+o.Discarded, known[p.id], s.parked(p))
	}
	return b.String(), nil
}

// remembered are the messages that the answer has noted in the table inbox.
func (s *booking) remembered(ctx context.Context) (map[string]bool, error) {
	rows, err := s.arena.DB.Query(ctx, "SELECT message_id FROM public.inbox WHERE consumer = $1", myName)
	if err != nil {
		return nil, fmt.Errorf("read the inbox: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the inbox: %w", err)
	}
	out := map[string]bool{}
	for _, id := range ids {
		out[id] = true
	}
	return out, nil
}

// Settle is called when all is done and no process runs: what was not
// acknowledged is in the queue again.
func (s *booking) Settle(ctx context.Context) error {
	err := s.look(ctx)
	s.left = s.ready
	return err
}
