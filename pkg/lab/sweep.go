package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/view"
)

// Sweep has the judge of an exercise crash work at every step, as it does with a
// graded answer, and shows the crash matrix: what each fault at each point did.
// Nothing is recorded, and a broken invariant does not fail the cell.
func (l *Lab) Sweep(id string, work Work) crash.Verdict {
	return l.sweep(id, nameOf(work), func(ctx context.Context, p *exercise.Process, _ json.RawMessage) error {
		db, err := p.Postgres(ctx)
		if err != nil {
			return err
		}
		conn, err := p.Broker()
		if err != nil {
			return err
		}
		return work(ctx, db, conn)
	})
}

// SweepCalls is [Lab.Sweep] for an exercise whose answer is called with an
// argument, such as outbox/place.
func SweepCalls[A any](l *Lab, id string, answer func(context.Context, *pgxpool.Pool, A) error) crash.Verdict {
	return l.sweep(id, nameOf(answer), func(ctx context.Context, p *exercise.Process, arg json.RawMessage) error {
		var a A
		if err := json.Unmarshal(arg, &a); err != nil {
			return fmt.Errorf("lab: read the argument: %w", err)
		}
		db, err := p.Postgres(ctx)
		if err != nil {
			return err
		}
		return answer(ctx, db, a)
	})
}

func (l *Lab) sweep(id, name string, h exercise.Handler) crash.Verdict {
	l.calls++
	if l.role != nil {
		if l.role.call == l.calls {
			l.role.judged(h)
		}
		return crash.Verdict{}
	}
	path, err := self()
	if err != nil {
		l.fail(err)
	}
	show := exercise.NewProgress(os.Stderr)
	v, err := exercise.Judge(l.ctx, crash.Request{
		Exercise: id, Servers: l.at.servers, Mode: crash.Quick, Seed: rand.Uint64() >> 12,
		Until: "all is tried", // which is no invariant's name: a demonstration does not stop at the first failure
		Program: crash.Program{Path: path, Args: l.args, Env: []string{
			roleEnv + "=" + role{call: l.calls}.String(), "PATH=/usr/bin:/bin", "LANG=C.UTF-8"}},
	}, show.Show)
	show.End()
	if err == nil && v.Verdict == crash.Unjudged {
		err = fmt.Errorf("lab: the judge could not do its work: %s", v.Error)
	}
	if err != nil {
		l.fail(err)
	}
	if err := l.showSweep(name, v); err != nil {
		l.fail(err)
	}
	return v
}

// longMatrix is how many points are too many to be shown unasked when all held.
const longMatrix = 100

// showSweep shows the matrix and, in words, what broke first.
func (l *Lab) showSweep(name string, v crash.Verdict) error {
	matrix, err := view.MatrixHTML(v)
	if err != nil {
		return err
	}
	lines := summary(name, v)
	var b strings.Builder
	b.WriteString("<p><strong>" + html.EscapeString(lines[0]) + "</strong></p>")
	for _, s := range lines[1:] {
		b.WriteString("<p>" + html.EscapeString(s) + "</p>")
	}
	if len(v.Points) > longMatrix && len(lines) == 2 { // page after page of the same
		matrix = "<details><summary>The matrix of all runs</summary>" + matrix + "</details>"
	}
	b.WriteString(matrix)
	var text strings.Builder
	text.WriteString(strings.Join(lines, "\n") + "\n\n")
	if err := view.MatrixText(&text, v, view.TextOptions{Width: 90}); err != nil {
		return err
	}
	l.out.show(framed(b.String()), text.String())
	return nil
}

// summary says in words how a sweep went.
func summary(name string, v crash.Verdict) []string {
	survived, judged := 0, 0
	for _, p := range v.Points {
		switch p.Outcome {
		case crash.Held:
			survived++
			judged++
		case crash.Violated, crash.Hung:
			judged++
		}
	}
	lines := []string{fmt.Sprintf("%s survived %d of %s.", name, survived, count(judged, "run"))}
	var broke []string
	for _, i := range v.Invariants {
		if !i.Held {
			broke = append(broke, i.Name)
		}
	}
	if len(broke) == 0 {
		return append(lines, "Every invariant held.")
	}
	lines = append(lines, "It broke "+strings.Join(broke, ", ")+".")
	if f := v.Failure; f != nil && len(f.Story) > 0 {
		for _, s := range f.Story[:len(f.Story)-1] {
			if strings.HasPrefix(s, "At point") || strings.HasPrefix(s, "In this run") {
				lines = append(lines, "For example: "+strings.ToLower(s[:1])+s[1:])
			}
		}
		lines = append(lines, f.Story[len(f.Story)-1])
	}
	return lines
}
