package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"crashcourse/pkg/progress"
	"crashcourse/pkg/state"
)

func TestStaleAnswers(t *testing.T) {
	const id = "outbox/relay"
	root := t.TempDir()
	t.Setenv(state.RootEnv, root)
	judged := time.Now()
	write := func(path, source string, at time.Time) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	stale := func(last progress.Result) bool {
		e := progress.Exercise{Last: last}
		return e.Stale(answerHashes(root, id, last), "").Answer
	}
	const mine, other = "package p\n\nfunc Relay() int { return 42 }\n", "package p\n\nfunc Relay() int { return 0 }\n"
	starter, own := filepath.Join(root, "exercises", "outbox", "relay.go"), filepath.Join(root, "answer.go")
	last := progress.Result{At: judged, Answer: currentHash(id, []byte(mine))}

	write(starter, other, judged.Add(-time.Hour))
	if stale(last) {
		t.Error("nothing was written since the verdict, as before a notebook is saved, and it is stale")
	}
	write(starter, other, judged.Add(time.Hour))
	if !stale(last) {
		t.Error("another answer was written, and the verdict is not stale")
	}
	last.File = own
	write(own, mine, judged.Add(-time.Hour))
	if stale(last) {
		t.Error("the file that was judged has the answer still, and the verdict is stale")
	}
	write(own, other, judged.Add(time.Hour))
	if !stale(last) || slices.Contains(answerHashes(root, id, last), last.Answer) {
		t.Error("the file that was judged has changed, and the verdict is not stale")
	}
}
