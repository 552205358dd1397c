package progress_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/progress"
)

func verdict(v string, score float64) crash.Verdict {
	return crash.Verdict{
		Version: 1, Exercise: "outbox/relay", Verdict: v, Score: score, Answer: "a1", Judge: "j1",
		Points:     []crash.PointResult{{Outcome: crash.Held}, {Outcome: crash.Violated}, {Outcome: crash.Unreached}},
		Invariants: []crash.InvariantResult{{Name: "no-lost-event", Held: v == crash.Pass}},
	}
}

func record(t *testing.T, dir string, vs ...crash.Verdict) {
	t.Helper()
	for _, v := range vs {
		if err := progress.Record(dir, v); err != nil {
			t.Fatal(err)
		}
	}
}

func load(t *testing.T, dir string) progress.Exercise {
	t.Helper()
	list, aside, err := progress.Load(dir)
	if err != nil || len(aside) > 0 || len(list) != 1 {
		t.Fatalf("Load = %v, %v, %v; want one exercise", list, aside, err)
	}
	return list[0]
}

func TestLastAndBest(t *testing.T) {
	dir := t.TempDir()
	record(t, dir, verdict(crash.Fail, 0.9), verdict(crash.Pass, 1), verdict(crash.Fail, 0.5), verdict(crash.Unjudged, 0))
	e := load(t, dir)
	if e.Tries != 3 {
		t.Errorf("%d tries, want 3: an unjudged verdict does not count", e.Tries)
	}
	if e.Last.Verdict != crash.Fail || e.Last.Score != 0.5 {
		t.Errorf("last is %+v", e.Last)
	}
	if e.Best.Verdict != crash.Pass || e.Passed == nil {
		t.Errorf("best is %+v, passed %v", e.Best, e.Passed)
	}
	if e.Last.Points != 2 || e.Last.Survived != 1 || len(e.Last.Broke) != 1 {
		t.Errorf("summary is %+v", e.Last)
	}
}

func TestStale(t *testing.T) {
	dir := t.TempDir()
	record(t, dir, verdict(crash.Pass, 1))
	e := load(t, dir)
	for _, c := range []struct {
		answers []string
		judge   string
		want    progress.Staleness
	}{
		{[]string{"other", "a1"}, "j1", progress.Staleness{}},
		{[]string{"other"}, "j1", progress.Staleness{Answer: true}},
		{[]string{"a1"}, "j2", progress.Staleness{Judge: true}},
		{nil, "", progress.Staleness{}},
	} {
		if got := e.Stale(c.answers, c.judge); got != c.want {
			t.Errorf("Stale(%v, %q) = %+v, want %+v", c.answers, c.judge, got, c.want)
		}
	}
}

func TestDamagedFileIsSetAside(t *testing.T) {
	dir := t.TempDir()
	record(t, dir, verdict(crash.Pass, 1))
	path := filepath.Join(dir, "progress", "outbox-relay.json")
	const damage = `{"version":1,"exerc`
	if err := os.WriteFile(path, []byte(damage), 0o644); err != nil {
		t.Fatal(err)
	}
	list, aside, err := progress.Load(dir)
	if err != nil || len(list) != 0 || len(aside) != 1 {
		t.Fatalf("Load = %v, %v, %v", list, aside, err)
	}
	if b, err := os.ReadFile(aside[0]); err != nil || string(b) != damage {
		t.Errorf("the file set aside has %q, %v", b, err)
	}
	// A verdict over a damaged file does not overwrite it either.
	if err := os.WriteFile(path, []byte(damage), 0o644); err != nil {
		t.Fatal(err)
	}
	record(t, dir, verdict(crash.Fail, 0))
	if e := load(t, dir); e.Tries != 1 {
		t.Errorf("%d tries, want 1", e.Tries)
	}
	all, err := filepath.Glob(path + ".corrupt-*")
	if err != nil || len(all) != 2 {
		t.Errorf("set aside: %v, %v", all, err)
	}
}

func TestConcurrentRecords(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := progress.Record(dir, verdict(crash.Fail, 0.1)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if e := load(t, dir); e.Tries != 20 {
		t.Errorf("%d tries, want 20", e.Tries)
	}
}

func TestStrangeIDs(t *testing.T) {
	for _, id := range []string{"", "outbox", "/relay", "outbox/", "../../x", "a/b/c"} {
		v := verdict(crash.Pass, 1)
		v.Exercise = id
		if err := progress.Record(t.TempDir(), v); err == nil || !strings.Contains(err.Error(), "not the id") {
			t.Errorf("%q: %v", id, err)
		}
	}
}
