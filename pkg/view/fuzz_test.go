package view

import (
	"encoding/json"
	"strings"
	"testing"

	"crashcourse/pkg/crash"
)

// FuzzVerdict draws whatever reads as a verdict: a file that was edited or broken
// is drawn as far as it goes.
func FuzzVerdict(f *testing.F) {
	for name, v := range samples() {
		if name == "huge" {
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v crash.Verdict
		if json.Unmarshal(data, &v) != nil {
			return
		}
		s := text(t, v, TextOptions{Diagram: true})
		if i := strings.IndexFunc(s, actsOnTerminal); i >= 0 {
			t.Errorf("%q acts on the terminal", s[i:])
		}
		page, err := HTML(v)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(page, actsOnTerminal); i >= 0 {
			t.Errorf("%q acts on the page", page[i:])
		}
		if v.Golden != nil {
			if _, err := TraceSVG(v.Golden, TraceOptions{Point: v.Exercise, Fault: "kill"}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
