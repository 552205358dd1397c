package inbox

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/crash/stage"
)

// findings are broken invariants, as far as the exercise has them.
type findings []crash.Violation

func (f *findings) add(i crash.Invariant, format string, args ...any) {
	*f = append(*f, crash.Violation{Invariant: i.Name, Detail: fmt.Sprintf(format, args...)})
}

// Check counts the money, and looks for what became of each message.
func (s *booking) Check(ctx context.Context, faults int) ([]crash.Violation, error) {
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	known, err := s.remembered(ctx)
	if err != nil {
		return nil, err
	}
	balances, err := s.balances(ctx)
	if err != nil {
		return nil, err
	}
	var f findings
	if s.half != "" {
		f.add(effectOnce, "%s: half of a payment was done", s.half)
	}
	s.checkMoney(&f, balances)
	for _, p := range s.payments {
		switch {
		case !s.sent(p):
		case p.poison != "":
			s.checkPoison(&f, p)
		default:
			s.checkPayment(&f, p, known)
		}
	}
	if s.inOrder {
		s.checkOrder(&f)
	}
	if s.thrifty && faults == 0 && len(f) == 0 {
		s.checkBatches(&f)
	}
	if s.stuck > 0 {
		f = append(f, crash.Violation{Invariant: crash.AllWorkDone, Detail: fmt.Sprintf("%.0f seconds after process %d had lost its connection to RabbitMQ, it had neither ended nor made another", stuckAfter.Seconds(), s.stuck)})
	}
	if n := s.hands.All(); n > 0 && s.acks && s.second && len(f) == 0 {
		f.add(acknowledged, "everything is booked or parked, and %d deliveries stay open, neither acknowledged nor rejected", n)
		f[len(f)-1].Explains = true
	}
	if s.left > 0 {
		f.add(acknowledged, "when everything was dealt with and the consumer was asked to stop, %s went back to the queue", stage.Count(s.left, "message"))
	}
	if s.locker != nil {
		f.add(othersGoOn, "while account A was locked by somebody else, payments of other accounts were not booked")
		f[len(f)-1].Explains = true
	}
	return f, nil
}

func (s *booking) balances(ctx context.Context) (map[string]int64, error) {
	rows, err := s.arena.DB.Query(ctx, "SELECT id, balance_cents FROM public.accounts")
	if err != nil {
		return nil, fmt.Errorf("read the accounts: %w", err)
	}
	out := map[string]int64{}
	var id string
	var cents int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &cents}, func() error { out[id] = cents; return nil }); err != nil {
		return nil, fmt.Errorf("read the accounts: %w", err)
	}
	return out, nil
}

// checkMoney compares balances with the ledger, and the ledger with what was sent.
func (s *booking) checkMoney(f *findings, balances map[string]int64) {
	sums := map[string]int64{}
	for _, r := range s.rows {
		sums[r.account] += r.cents
		switch p := s.bookedAs(r); {
		case p == nil:
			f.add(effectOnce, "the ledger has a row of %d cents for account %s that no message speaks of", r.cents, s.name(r.account))
		case p.poison != "" && p.id == "":
			f.add(poisonParked, "message %d was booked, although it has %s: nobody could tell a second delivery of it from the first", p.n, p.poison)
		case p.poison != "":
			f.add(poisonParked, "message %d was booked, although it has %s", p.n, p.poison)
		}
	}
	for _, p := range s.payments {
		group := s.alike(p)
		if p.poison != "" || len(group) == 0 || group[0] != p {
			continue
		}
		if n := s.times(p); n > len(group) {
			f.add(effectOnce, "%s booked %s, instead of %s", numbers(group), stage.Count(n, "time"), stage.Count(len(group), "time"))
		}
	}
	for i, a := range s.accounts {
		if balances[a] != sums[a] {
			f.add(effectOnce, "the balance of account %s is %d cents, and its ledger adds up to %d", stage.Letter(i), balances[a], sums[a])
		}
	}
}

// checkPayment looks for what became of a payment that is not booked.
func (s *booking) checkPayment(f *findings, p *payment, known map[string]bool) {
	switch o := s.hands.Of(p.id); {
	case s.parked(p):
		f.add(poisonParked, "payment %d can be booked, and is among the dead letters", p.n)
	case s.dealt(p) || s.ready > 0 || s.hands.Holds(p.id) > 0:
	case len(s.alike(p)) > 1 && s.times(p) > 0 && (o.Acked == 0 || known[p.id] || !s.acks || !s.anyKnown(s.alike(p), known)):
		f.add(noLostMessage, "%s different, by their message IDs, and only %s booked", numbers(s.alike(p)), stage.Count(s.times(p), "payment"))
	case o.Acked > 0 && !known[p.id] && s.acks:
		f.add(noWrongAck, "payment %d was acknowledged, and is not booked", p.n)
	case o.Acked > 0:
		f.add(noLostMessage, "payment %d counts as handled, and its money has not moved", p.n)
	default:
		f.add(noLostMessage, "payment %d is neither booked nor in the queue", p.n)
	}
}

// anyKnown says whether the answer has noted one of these by its message ID.
func (s *booking) anyKnown(list []*payment, known map[string]bool) bool {
	return slices.ContainsFunc(list, func(p *payment) bool { return known[p.id] })
}

// often is how many deliveries of a message no single fault explains.
const often = 5

func (s *booking) checkPoison(f *findings, p *payment) {
	if s.parked(p) {
		return
	}
	switch n := s.hands.Of(p.id).Delivered; {
	case n > often:
		f.add(poisonParked, "message %d has %s; it was delivered %d times, and is still not among the dead letters", p.n, p.poison, n)
		(*f)[len(*f)-1].Explains = true
	case s.ready == 0 && s.hands.Holds(p.id) == 0:
		f.add(poisonParked, "message %d has %s, and is not among the dead letters", p.n, p.poison)
	}
}

// checkOrder compares the ledger's order with the queue's, account by account.
func (s *booking) checkOrder(f *findings) {
	last := map[string]*payment{}
	seen := map[*payment]bool{}
	for _, r := range s.rows {
		p := s.bookedAs(r)
		if p == nil || len(s.alike(p)) != 1 || seen[p] {
			continue
		}
		seen[p] = true
		if before := last[r.account]; before != nil && before.n > p.n {
			f.add(orderPerKey, "of account %s, payment %d was booked after payment %d", s.name(r.account), p.n, before.n)
			return
		}
		last[r.account] = p
	}
}

// fewer is how many payments a transaction has to book on average.
const fewer = 5

func (s *booking) checkBatches(f *findings) {
	transactions := map[int64]bool{}
	booked := 0
	for _, r := range s.rows {
		if p := s.bookedAs(r); p == nil || !p.late {
			transactions[r.tx] = true
			booked++
		}
	}
	if len(transactions) > booked/fewer {
		f.add(inBatches, "%d payments were waiting, and were booked in %d transactions", booked, len(transactions))
	}
}

// name is an account's letter.
func (s *booking) name(account string) string {
	if i := slices.Index(s.accounts, account); i >= 0 {
		return stage.Letter(i)
	}
	return stage.Clip(account, 20)
}

// numbers names payments in a sentence's begin.
func numbers(list []*payment) string {
	if len(list) == 1 {
		return fmt.Sprintf("payment %d is", list[0].n)
	}
	var out []string
	for _, p := range list {
		out = append(out, fmt.Sprint(p.n))
	}
	return "payments " + strings.Join(out, " and ") + " are"
}

// mostRows is how much of a table a report shows.
const mostRows = 16

func (s *booking) Tables(ctx context.Context) ([]crash.Table, error) {
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	balances, err := s.balances(ctx)
	if err != nil {
		return nil, err
	}
	known, err := s.remembered(ctx)
	if err != nil {
		return nil, err
	}
	accounts := crash.Table{Name: "accounts", Columns: []string{"account", "balance", "sent to it"}}
	for i, a := range s.accounts {
		sent := int64(0)
		for _, p := range s.payments {
			if p.poison == "" && p.account == i && s.sent(p) {
				sent += p.cents
			}
		}
		accounts.Rows = append(accounts.Rows, []string{stage.Letter(i), fmt.Sprint(balances[a]), fmt.Sprint(sent)})
		if balances[a] > sent {
			accounts.Marks = append(accounts.Marks, i)
		}
	}
	messages := crash.Table{Name: "messages", Columns: []string{"message", "account", "cents", "booked", "in inbox", "acked", "in dead letters"}}
	for _, p := range s.payments {
		if !s.sent(p) {
			continue
		}
		wrong := p.poison == "" && s.times(p) != len(s.alike(p)) || p.poison == "" && s.parked(p)
		if len(messages.Rows) >= mostRows && !wrong && p.poison == "" {
			continue
		}
		what := s.name(s.accountOf(p))
		if p.poison != "" {
			what = p.poison
		}
		messages.Rows = append(messages.Rows, []string{fmt.Sprint(p.n), what, fmt.Sprint(p.cents), fmt.Sprint(s.times(p)), yes(known[p.id]), fmt.Sprint(s.hands.Of(p.id).Acked), yes(s.parked(p))})
		if wrong {
			messages.Marks = append(messages.Marks, len(messages.Rows)-1)
		}
	}
	queue := crash.Table{Name: "queue " + queueName, Columns: []string{"messages that wait", "in hand"}, Rows: [][]string{{fmt.Sprint(s.ready), fmt.Sprint(s.hands.All())}}}
	return []crash.Table{accounts, messages, queue}, nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}
