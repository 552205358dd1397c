package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
	"time"

	"crashcourse/pkg/state"
	"crashcourse/pkg/step"
	"crashcourse/pkg/view"
)

// Scenario is work to be stepped through.
type Scenario struct {
	Title string // empty: made of the functions' names
	Start Work   // makes the starting state, again for each rewind; nil: all stays as it is
	Run   []Work // each in a process of its own
}

// openTime bounds how long a live session takes to open.
const openTime = 45 * time.Second

// Step opens a live session under the cell: each message to PostgreSQL and
// RabbitMQ waits until the reader lets it pass, or crashes the process there.
// It returns at once; the session lives in the lab server until another one of
// this notebook is opened. Where no lab server runs, or the cell has a
// [Lab.Service], the work runs through by itself and is shown recorded.
func (l *Lab) Step(s Scenario) {
	l.calls++
	if l.role != nil {
		if l.role.call != l.calls {
			return
		}
		if i := l.role.work; i >= 0 && i < len(s.Run) {
			l.role.run(s.Run[i])
		}
		if s.Start != nil {
			l.role.run(s.Start)
		}
		return
	}
	if s.Title == "" {
		s.Title = (&run{works: s.Run}).names()
	}
	if err := l.step(s); err != nil {
		l.fail(err)
	}
}

func (l *Lab) step(s Scenario) error {
	if l.at.card == nil {
		return l.at.notFresh()
	}
	dir, err := state.Dir()
	if err != nil {
		return err
	}
	server, err := state.LoadLab(dir)
	if len(l.services) > 0 {
		return l.recorded(s, "A service lives in this cell and ends with it, so this ran by itself and is shown recorded.")
	}
	if err == nil {
		var opened step.Opened
		if opened, err = l.open(server, s); err == nil {
			l.showLive(server, opened, s.Title)
			return nil
		}
		var refused *refusal
		if errors.As(err, &refused) {
			return fmt.Errorf("lab: no live session: %s", refused.sentence)
		}
		if l.ctx.Err() != nil {
			return l.ctx.Err()
		}
	}
	return l.recorded(s, "No lab server runs, so this ran by itself and is shown recorded. `make lab` lets you step through it live.")
}

// recorded runs the work by itself, and says why.
func (l *Lab) recorded(s Scenario, why string) error {
	if s.Start != nil {
		if err := s.Start(l.ctx, l.DB(), l.Conn()); err != nil {
			return fmt.Errorf("lab: make the starting state: %w", err)
		}
	}
	l.out.say("%s", why)
	r := &run{lab: l, works: s.Run, named: s.Title, events: make(chan func(), 64)}
	if err := r.do(l.ctx); err != nil {
		return err
	}
	r.show()
	return nil
}

// refusal is what the lab server has against a request.
type refusal struct{ sentence string }

func (r *refusal) Error() string { return r.sentence }

// open asks the lab server for a session.
func (l *Lab) open(server state.Lab, s Scenario) (step.Opened, error) {
	card := l.at.card
	config := step.Config{Title: s.Title, Postgres: card.Postgres, AMQP: card.AMQP, Management: l.at.servers.Management}
	for i, w := range s.Run {
		work, err := l.work(l.calls, i, nameOf(w))
		if err != nil {
			return step.Opened{}, err
		}
		config.Works = append(config.Works, work)
	}
	if s.Start != nil {
		var err error
		if config.Prepare, err = l.work(l.calls, -1, nameOf(s.Start)); err != nil {
			return step.Opened{}, err
		}
	}
	body, err := json.Marshal(config)
	if err != nil {
		return step.Opened{}, err
	}
	ctx, cancel := context.WithTimeout(l.ctx, openTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/sessions", bytes.NewReader(body))
	if err != nil {
		return step.Opened{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+server.Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return step.Opened{}, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return step.Opened{}, err
	}
	if res.StatusCode != http.StatusOK {
		var said struct{ Error string }
		if json.Unmarshal(answer, &said) != nil || said.Error == "" {
			said.Error = "the lab server answers " + res.Status
		}
		return step.Opened{}, &refusal{said.Error}
	}
	var opened step.Opened
	return opened, json.Unmarshal(answer, &opened)
}

// showLive shows a session's page under the cell. The address is made by the
// page that the cell is in, for only that knows JupyterLab's base URL; where
// there is no JupyterLab the page opens in a tab of its own.
func (l *Lab) showLive(server state.Lab, opened step.Opened, title string) {
	path, err := json.Marshal(server.Path + opened.Path) // also escapes what would end the script
	if err != nil {
		l.fail(err)
		return
	}
	direct := server.URL + "/" + opened.Path
	rich := `<div class="ccl"><iframe title="` + html.EscapeString("Live: "+title) + `" style="width:100%;height:660px;border:0;display:block" allow="fullscreen"></iframe>` +
		`<p hidden>The live session: <a target="_blank" rel="noopener" href="` + html.EscapeString(direct) + `">` + html.EscapeString(direct) + `</a> (the address that <code>make lab</code> printed lets you in).</p>` +
		`<script>(() => { const box = document.currentScript.parentElement, frame = box.querySelector("iframe"); let base; ` +
		`try { base = JSON.parse(document.getElementById("jupyter-config-data").textContent).baseUrl; } catch { } ` +
		`if (base) frame.src = base + ` + string(path) + `; else { frame.remove(); box.querySelector("p").hidden = false; } })()</script></div>`
	l.out.show(rich, "A live session is open: "+direct)
}

// Show shows a recording, to be stepped through.
func (l *Lab) Show(r view.Recording) {
	if l.role != nil {
		return
	}
	rich, text, err := drawn(r)
	if err != nil {
		l.fail(err)
		return
	}
	l.out.show(rich, text)
}

// drawn is a recording in both forms.
func drawn(r view.Recording) (rich, text string, err error) {
	rich, err = view.RecordedHTML(r)
	if err != nil {
		return "", "", err
	}
	var b strings.Builder
	err = view.TraceText(&b, &r.Trace, view.TraceOptions{Title: r.Title, Width: 90})
	return rich, b.String(), err
}
