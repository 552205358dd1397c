package view

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"strings"
)

//go:embed player/player.js player/player.css player/words.json
var playerFiles embed.FS

// player makes the element that the view mounts in. recording is its JSON form,
// nil for a live session; fallback is seen until the script runs, and for good
// where none may; live is the address of a session, relative to the page, and
// empty for a recording.
func player(recording []byte, fallback template.HTML, live string) (string, error) {
	look, err := playerLook()
	if err != nil {
		return "", err
	}
	script, err := playerScript()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(`<div class="crashcourse-view" data-lm-suppress-shortcuts="true"`)
	if live != "" {
		b.WriteString(` data-live="` + template.HTMLEscapeString(live) + `"`)
	}
	b.WriteString(">\n")
	if recording != nil {
		data, err := inScript(recording)
		if err != nil {
			return "", fmt.Errorf("view: put a recording into a page: %w", err)
		}
		b.WriteString(`<script type="application/json" class="recording">` + data + "</script>\n")
	}
	b.WriteString(`<script type="application/json" class="player">` + look + "</script>\n")
	b.WriteString(string(fallback))
	b.WriteString("\n<script>" + script + "</script>\n</div>\n")
	return b.String(), nil
}

// playerLook is what the script finds beside it: its words and its styles.
func playerLook() (string, error) {
	words, err := playerFiles.ReadFile("player/words.json")
	if err != nil {
		return "", fmt.Errorf("view: read the player's words: %w", err)
	}
	css, err := playerFiles.ReadFile("player/player.css")
	if err != nil {
		return "", fmt.Errorf("view: read the player's style sheet: %w", err)
	}
	theme, err := styles("theme.css")
	if err != nil {
		return "", err
	}
	look, err := json.Marshal(map[string]any{"words": json.RawMessage(words), "css": string(theme) + squeeze(string(css))})
	if err != nil {
		return "", fmt.Errorf("view: read the player's words: %w", err)
	}
	return inScript(look)
}

// playerScript is the script as it stands in a page: a content security policy
// can allow it by its hash.
func playerScript() (string, error) {
	js, err := playerFiles.ReadFile("player/player.js")
	if err != nil {
		return "", fmt.Errorf("view: read the player: %w", err)
	}
	return squeezeJS(string(js)), nil
}

// squeezeJS leaves out indentation, empty lines and lines that are all comment.
// The line ends stay, so that statements end where they did. It asks that no
// text goes over several lines, which a test makes sure of.
func squeezeJS(js string) string {
	var b strings.Builder
	for l := range strings.Lines(js) {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "//") {
			continue
		}
		b.WriteString(l)
		b.WriteByte('\n')
	}
	return b.String()
}

// inScript makes JSON safe between the tags of a script: "<", ">", "&" and the
// line separators U+2028 and U+2029 only occur in strings, and are escaped.
func inScript(text []byte) (string, error) {
	if !json.Valid(text) {
		return "", errors.New("it is not JSON")
	}
	var short, safe bytes.Buffer
	if err := json.Compact(&short, text); err != nil {
		return "", err
	}
	json.HTMLEscape(&safe, short.Bytes())
	return strings.ToValidUTF8(safe.String(), "\ufffd"), nil
}
