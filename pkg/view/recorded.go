package view

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"strings"
)

// MaxRecorded is the most bytes that [RecordedHTML] returns, whatever was
// recorded. Two of them stand in one cell.
const MaxRecorded = 140 << 10

// RecordedHTML makes the view of a recording, for the text/html output of a
// notebook cell: it can be stepped through with a slider or the keyboard, in an
// exported notebook too, and needs nothing but itself. Where scripts may not run
// it is the picture in characters. Of a recording that is too long, the middle or the
// rows of its tables are left out, and it says so.
func RecordedHTML(r Recording) (string, error) {
	for _, size := range []struct{ rows, cell, detail, messages int }{
		{50, 120, 512, 4000}, {20, 80, 200, 1000}, {8, 40, 80, 400}, {3, 24, 0, 150}, {0, 0, 0, 80},
	} {
		short := r.shortened(size.rows, size.cell, size.detail, size.messages)
		html, err := recorded(short)
		if err != nil || len(html) <= MaxRecorded {
			return html, err
		}
	}
	return "", fmt.Errorf("view: draw the recording %q: it takes more than %d bytes even when shortened", line(r.Title, 80), MaxRecorded)
}

func recorded(r Recording) (string, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("view: write the recording: %w", err)
	}
	o := TraceOptions{Title: r.Title, Width: 90, Colour: ColourNever}
	for _, b := range r.Broken {
		o.Broken = b.Invariant
	}
	var still strings.Builder
	if err := TraceText(&still, &r.Trace, o); err != nil {
		return "", err
	}
	return player(data, template.HTML("<pre>"+template.HTMLEscapeString(still.String())+"</pre>"), "")
}

// RecordedPage makes a page of its own of a recording, for a file or a tab. Its
// content security policy allows its own script and no request.
func RecordedPage(r Recording) (string, error) {
	body, err := RecordedHTML(r)
	if err != nil {
		return "", err
	}
	policy, err := policy("'none'")
	if err != nil {
		return "", err
	}
	return page(r.Title, `<meta http-equiv="Content-Security-Policy" content="`+template.HTMLEscapeString(policy)+`">`, body), nil
}

// LivePage makes the page of a live session, to be served at base + "/" where
// its events and commands are at base + "/events" and base + "/do". The second
// result is the content security policy to serve it with: it allows requests to
// where the page came from, and nothing else.
func LivePage(title string) (html, contentSecurityPolicy string, err error) {
	body, err := player(nil, template.HTML("<p>"+template.HTMLEscapeString(english().NoScript)+"</p>"), "./")
	if err != nil {
		return "", "", err
	}
	policy, err := policy("'self'")
	if err != nil {
		return "", "", err
	}
	return page(title, "<style>body{padding:0}</style>", body), policy + "; frame-ancestors 'self'", nil
}

func policy(connect string) (string, error) {
	script, err := playerScript()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(script))
	return "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; connect-src " + connect +
		"; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", nil
}

func page(title, head, body string) string {
	title = template.HTMLEscapeString(line(title, 120))
	return `<!DOCTYPE html><html lang="` + english().Lang + `"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">` +
		`<title>` + title + `</title><style>html{color-scheme:light dark}body{margin:0;padding:8px;min-height:100vh;box-sizing:border-box;background:Canvas}h1{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);margin:0}</style>` + head +
		`</head><body><main><h1>` + title + `</h1>` + body + `</main></body></html>`
}

// shortened returns a copy with at most so many rows in a table, characters in a
// cell and in a message's detail, and messages.
func (r Recording) shortened(rows, cell, detail, messages int) Recording {
	r.Trace = steps(r.Trace)
	if n := len(r.Trace.Messages); n > messages {
		// The begin tells how it came to that, and the end what came of it.
		kept := r.Trace.Messages[: messages/2 : messages/2]
		r.Trace.Messages = append(kept, r.Trace.Messages[n-messages/2:]...)
		r.Trace.Dropped += n - len(r.Trace.Messages)
	}
	for i := range r.Trace.Messages {
		m := &r.Trace.Messages[i]
		m.Detail = cut(m.Detail, detail)
	}
	var all []Scene
	for _, s := range r.Scenes {
		scene := Scene{After: s.After, Things: []Thing{}}
		for _, t := range s.Things {
			if over := len(t.Rows) - rows; over > 0 {
				t.Rows, t.More = t.Rows[:rows], t.More+over
			}
			short := make([][]string, len(t.Rows))
			for i, row := range t.Rows {
				for _, v := range row {
					short[i] = append(short[i], cut(v, cell))
				}
			}
			t.Rows = short
			scene.Things = append(scene.Things, t)
		}
		all = append(all, scene)
	}
	if len(all) > messages {
		all = append(all[:messages/2:messages/2], all[len(all)-messages/2:]...)
	}
	r.Scenes = all
	if r.Ghost != nil {
		g := *r.Ghost
		g.Trace = Recording{Trace: g.Trace}.shortened(0, 0, min(detail, 80), messages).Trace
		r.Ghost = &g
	}
	r.Title = line(r.Title, 200)
	return r
}

// cut cuts s to at most n characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	all := []rune(strings.ToValidUTF8(s, "\ufffd"))
	if len(all) <= n {
		return string(all)
	}
	return string(all[:max(0, n-1)]) + "…"
}
