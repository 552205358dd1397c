package labserver

import "html/template"

// indexPage lists the live sessions.
var indexPage = template.Must(template.New("index").Parse(`<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>Crash Course: live sessions</title>
<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}</style></head>
<body><main><h1>Live sessions</h1>
{{if .}}<ul>{{range $id, $s := .}}<li><a href="s/{{$id}}/">{{$s.Title}}</a></li>{{end}}</ul>
{{else}}<p>None is open. A cell with <code>l.Step(…)</code> opens one.</p>{{end}}</main></body></html>
`))

// Title is shown in the list of sessions.
func (s *session) Title() string { return s.title }
