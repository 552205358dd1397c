package view

import (
	"encoding/json"
	"html/template"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestPlayerEscapes(t *testing.T) {
	values := []string{
		"</script><script>alert(1)</script>", "<!--<script>", "-->", "]]>", "&lt;/script&gt;", "<img src=x onerror=alert(1)>",
		"line\u2028separator\u2029here", "\u202eright to left", "\x00", "\xff\xfe", `"quoted" \u003c`, "</SCRIPT \n>",
	}
	plain, err := player([]byte(`{}`), "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		// As a program may have written it, with nothing escaped that JSON does
		// not ask for.
		var data strings.Builder
		e := json.NewEncoder(&data)
		e.SetEscapeHTML(false)
		if err := e.Encode(map[string]string{"version": v, v: "key"}); err != nil {
			t.Fatal(err)
		}
		got, err := player([]byte(data.String()), "", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"<script", "</script", "<!--", "\u2028", "\u2029"} {
			want := strings.Count(strings.ToLower(plain), bad)
			if n := strings.Count(strings.ToLower(got), bad); n != want {
				t.Errorf("%q: %d × %q, want %d", v, n, bad, want)
			}
		}
		_, rest, _ := strings.Cut(got, `class="recording">`)
		back, _, _ := strings.Cut(rest, "</script>")
		var m map[string]string
		if err := json.Unmarshal([]byte(back), &m); err != nil {
			t.Fatalf("%q: %v", v, err)
		}
		// The encoder replaces what is no UTF-8.
		var want string
		if back, err := json.Marshal(v); err != nil {
			t.Fatal(err)
		} else if err := json.Unmarshal(back, &want); err != nil {
			t.Fatal(err)
		}
		if m["version"] != want {
			t.Errorf("%q came back as %q", v, m["version"])
		}
	}
}

func TestPlayerMount(t *testing.T) {
	got, err := player(nil, template.HTML("<p>still</p>"), `session/1/?a="><script>`)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got, `data-live="session/1/?a=&#34;&gt;&lt;script&gt;"`) {
		t.Error("the address is not escaped:", got[:200])
	}
	if strings.Contains(got, `class="recording"`) {
		t.Error("a live view has a recording")
	}
	if !strings.Contains(got, "<p>still</p>") {
		t.Error("no still picture")
	}
	if strings.Contains(got, ` id="`) {
		t.Error("an id: two views could not stand on one page")
	}
	if _, err := player([]byte(`{"version":`), "", ""); err == nil {
		t.Error("broken JSON was taken")
	}
}

// TestPlayerFiles holds the files to what inlining and squeezing them asks.
func TestPlayerFiles(t *testing.T) {
	js, err := playerFiles.ReadFile("player/player.js")
	if err != nil {
		t.Fatal(err)
	}
	if most := 80 << 10; len(js) > most {
		t.Errorf("player.js has %d bytes, more than %d", len(js), most)
	}
	script := string(js)
	for _, bad := range []string{"</script", "<!--", "<script", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "/*"} {
		if strings.Contains(script, bad) {
			t.Errorf("player.js contains %q", bad)
		}
	}
	for _, at := range regexp.MustCompile(`https?://[^"]*`).FindAllString(script, -1) {
		if !strings.HasPrefix(at, "http://www.w3.org/") { // the names of SVG and HTML
			t.Errorf("player.js has the address %q", at)
		}
	}
	for i, l := range strings.Split(script, "\n") {
		if strings.Contains(l, "`") || strings.HasSuffix(l, `\`) {
			t.Errorf("player.js:%d: a text that may go over several lines", i+1)
		}
	}
	look, err := playerLook()
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Words map[string]any
		CSS   string
	}
	if err := json.Unmarshal([]byte(look), &parsed); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(parsed.CSS, "url(") || strings.Contains(parsed.CSS, "@import") {
		t.Error("the style sheet asks for something elsewhere")
	}
	if !strings.Contains(parsed.CSS, "--ccv-tx") || !strings.Contains(parsed.CSS, ".ccp") {
		t.Error("a style sheet is missing")
	}
	for _, m := range regexp.MustCompile(`\bW\.(\w+)`).FindAllStringSubmatch(script, -1) {
		if _, ok := parsed.Words[m[1]]; !ok {
			t.Errorf("words.json has no %q", m[1])
		}
	}
	for w := range parsed.Words {
		if !regexp.MustCompile(`\b` + w + `\b`).MatchString(script) {
			t.Errorf("words.json has %q, which nothing shows", w)
		}
	}
}

// TestPlayerLogic runs the tests of what the script does without a page.
func TestPlayerLogic(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("player_test.mjs needs node, which is not on the PATH (Debian, Ubuntu: apt install nodejs)")
	}
	said, err := exec.CommandContext(t.Context(), node, "--test", filepath.Join("player", "player_test.mjs")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}
