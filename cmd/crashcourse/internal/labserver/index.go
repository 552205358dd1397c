package labserver

import (
	"fmt"
	"html/template"
	"net/http"

	"crashcourse/pkg/exercise"
	"crashcourse/pkg/progress"
	"crashcourse/pkg/view"
)

// indexPage shows how far the learner has come, and the live sessions.
var indexPage = template.Must(template.New("index").Parse(`<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>Crash Course</title>
<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8886;vertical-align:top}</style></head>
<body><main><h1>Crash Course</h1>
<h2>Your progress</h2>
{{if .Exercises}}<table><thead><tr><th scope="col">Exercise</th><th scope="col">Last verdict</th><th scope="col">Survived</th><th scope="col">Tries</th><th scope="col">Look at it</th></tr></thead>
<tbody>{{range .Exercises}}<tr><th scope="row">{{.Exercise}}</th><td>{{if eq .Last.Verdict "pass"}}✓ pass{{else}}✗ {{.Last.Verdict}}{{range .Last.Broke}}<br>broke {{.}}{{end}}{{end}}{{if and .Passed (ne .Last.Verdict "pass")}}<br>✓ passed before{{end}}</td>
<td>{{.Last.Survived}} of {{.Last.Points}}</td><td>{{.Tries}}</td><td><a href="replay/{{.Exercise}}">step through it</a></td></tr>{{end}}</tbody></table>
<p><code>crashcourse status</code> also tells which verdicts are stale.</p>
{{else}}<p>No graded cell has been judged yet.</p>{{end}}
{{if .SetAside}}<p role="alert">A progress file was damaged. It is kept as {{range .SetAside}}<code>{{.}}</code> {{end}}</p>{{end}}
<h2>Live sessions</h2>
{{if .Sessions}}<ul>{{range $id, $s := .Sessions}}<li><a href="s/{{$id}}/">{{$s.Title}}</a></li>{{end}}</ul>
{{else}}<p>None is open. A cell with <code>l.Step(…)</code> opens one.</p>{{end}}</main></body></html>
`))

// Title is shown in the list of sessions.
func (s *session) Title() string { return s.title }

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	done, aside, err := progress.Load(s.dir)
	if err != nil {
		refuse(w, http.StatusInternalServerError, sentence(err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'")
	err = indexPage.Execute(w, struct {
		Exercises []progress.Exercise
		SetAside  []string
		Sessions  map[string]*session
	}{done, aside, s.sessions})
	if err != nil {
		s.log.Warn("labserver: draw the start page", "error", err)
	}
}

// replay serves the recorded view of an exercise's last verdict.
func (s *Server) replay(w http.ResponseWriter, r *http.Request) {
	v, err := exercise.LastVerdict(r.PathValue("pattern") + "/" + r.PathValue("exercise"))
	if err != nil {
		refuse(w, http.StatusNotFound, sentence(err))
		return
	}
	page, err := view.RecordedPage(exercise.Recording(v))
	if err != nil {
		refuse(w, http.StatusInternalServerError, sentence(err))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "frame-ancestors 'self'") // the page has a policy of its own
	fmt.Fprint(w, page)
}
