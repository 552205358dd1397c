package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"crashcourse/pkg/crash"
)

// columns are the kinds of a matrix, in its order. The first is the run without
// faults; "scene" stands for all variants of a starting state.
var columns = []string{none, scene, "kill", "cut", "blackhole", "nack", "fail", "shutdown", "delay"}

const (
	none  = "no fault"
	scene = "scene"
)

// column says under which kind a run belongs.
func column(p crash.PointResult) string {
	switch {
	case p.Fault == "":
		return none
	case !slices.Contains(columns, p.Fault):
		return scene
	}
	return p.Fault
}

// share is how many of some runs broke an invariant.
type share struct{ broke, of int }

func (s share) value() float64 {
	if s.of == 0 {
		return math.NaN()
	}
	return float64(s.broke) / float64(s.of)
}

// shares counts an answer's runs by kind.
func shares(j judged) map[string]share {
	out := map[string]share{}
	for _, p := range j.Verdict.Points {
		if p.Outcome == crash.Unreached {
			continue
		}
		s := out[column(p)]
		s.of++
		if p.Violation != "" {
			s.broke++
		}
		out[column(p)] = s
	}
	return out
}

// first is the number of runs until the first that broke an invariant, in the
// order of the sweep, and its kind. 0 is none.
func first(j judged) (runs int, kind string) {
	for i, p := range j.Verdict.Points {
		if p.Violation != "" {
			return i + 1, column(p)
		}
	}
	return 0, ""
}

// kinds says what each kind of fault is good for.
func kinds(w io.Writer, mutants []judged) {
	shows, alone, cheapest := map[string]int{}, map[string][]string{}, map[string]int{}
	runs := map[string]int{}
	var until []float64
	for _, m := range mutants {
		var by []string
		for kind, s := range shares(m) {
			runs[kind] += s.of
			if s.broke > 0 {
				shows[kind]++
				by = append(by, kind)
			}
		}
		if len(by) == 1 {
			alone[by[0]] = append(alone[by[0]], m.short()+"/"+m.Name)
		}
		if n, kind := first(m); n > 0 {
			cheapest[kind]++
			until = append(until, float64(n))
		}
	}
	fmt.Fprintf(w, "## What each kind of fault is good for\n\n")
	fmt.Fprintf(w, "%d mutants, every point of a quick sweep. A *scene* is a variant of the starting\nstate, such as a queue that is not bound at first.\n\n", len(mutants))
	fmt.Fprintln(w, "| kind | runs | mutants that it shows | is first to show | shows alone | for example |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	for _, k := range columns {
		slices.Sort(alone[k])
		example := ""
		if len(alone[k]) > 0 {
			example = "`" + strings.Join(alone[k][:min(3, len(alone[k]))], "`, `") + "`"
		}
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %s |\n", k, runs[k], shows[k], cheapest[k], len(alone[k]), example)
	}
	fmt.Fprintf(w, "\nA mutant is caught by run number %.0f of its sweep in the median, %.0f at the 90th\npercentile, %.0f at worst.\n\n", quantile(until, .5), quantile(until, .9), quantile(until, 1))
	for _, e := range exercises(mutants) {
		fmt.Fprintf(w, "![Mutants of %s by kind of fault: how large a share of its runs broke an invariant](pictures/kinds-%s.svg)\n\n", e, e)
	}
}

// random says how one kill at a message chosen by chance would have done.
func random(w io.Writer, kills, quick []judged) {
	var never, rare, half int
	mean, runs := 0.0, 0
	silent := of(kills, func(m judged) bool { return !without(m) && shares(m)["kill"].of > 0 })
	for _, m := range silent {
		s := shares(m)["kill"]
		runs += s.of
		switch c := s.value(); {
		case c == 0:
			never++
		case c < .1:
			rare++
		case c >= .5:
			half++
		}
		mean += s.value() / float64(len(silent))
	}
	fmt.Fprintf(w, "## One kill at random, and every fault\n\n")
	fmt.Fprintf(w, "%d of the mutants do their work well as long as nothing fails. They were killed at\nevery single message of their conversation (%d runs). The share of these runs that\nbroke an invariant is the chance that one `kill -9` at a random message finds the\nmutant.\n\n", len(silent), runs)
	fmt.Fprintf(w, "| of these %d mutants | |\n|---|---|\n", len(silent))
	fmt.Fprintf(w, "| chance to be found by one random kill, on average | %.0f %% |\n", 100*mean)
	fmt.Fprintf(w, "| found in at least every second such try | %d |\n", half)
	fmt.Fprintf(w, "| found in less than every tenth, but found | %d |\n", rare)
	fmt.Fprintf(w, "| never found by one kill, wherever it strikes | %d |\n", never)
	caught := 0
	byName := map[string]judged{}
	for _, m := range quick {
		byName[m.Exercise+m.Name] = m
	}
	for _, m := range silent {
		if n, _ := first(byName[m.Exercise+m.Name]); n > 0 {
			caught++
		}
	}
	fmt.Fprintf(w, "| found by the quick sweep | %d |\n\n", caught)
	fmt.Fprintf(w, "![Each of these mutants' chance of being found by one random kill, sorted](pictures/random.svg)\n\n")

	// The same kills, as the quick sweep chooses them.
	fewer, missed := 0, []string{}
	for _, m := range silent {
		q := byName[m.Exercise+m.Name]
		s := shares(q)
		fewer += s["kill"].of
		if shares(m)["kill"].broke > 0 && s["kill"].broke == 0 {
			missed = append(missed, m.short()+"/"+m.Name)
		}
	}
	fmt.Fprintf(w, "The quick sweep makes %d of these %d kills. ", fewer, runs)
	if len(missed) == 0 {
		fmt.Fprintf(w, "Every mutant that some kill shows, one\nof them shows.\n\n")
	} else {
		slices.Sort(missed)
		fmt.Fprintf(w, "What the others show and these do not: %s.\nOther kinds of its sweep show each of them.\n\n", "`"+strings.Join(missed, "`, `")+"`")
	}
}

// without says whether a mutant fails without any fault.
func without(m judged) bool {
	s := shares(m)[none]
	return s.broke > 0
}

// shortcuts compares a quick sweep with one that takes no shortcuts.
func shortcuts(w io.Writer, quick, unpruned []judged) {
	fmt.Fprintf(w, "## The shortcuts\n\n")
	fmt.Fprintln(w, "| right answers to | runs, quick | points reached | runs, unpruned | verdicts that differ |\n|---|---|---|---|---|")
	for _, e := range exercises(quick) {
		in := func(j judged) bool { return j.short() == e }
		q, u := of(quick, in), of(unpruned, in)
		reached, points := 0, 0
		var runs, more []float64
		verdicts := map[string]string{}
		for _, j := range q {
			for _, p := range j.Verdict.Points {
				points++
				if p.Outcome != crash.Unreached {
					reached++
				}
			}
			runs = append(runs, float64(j.Verdict.Runs))
			verdicts[j.Name] = j.Verdict.Verdict
		}
		differ := 0
		for _, j := range u {
			more = append(more, float64(j.Verdict.Runs))
			if verdicts[j.Name] != j.Verdict.Verdict {
				differ++
			}
		}
		fmt.Fprintf(w, "| `%s` | %.0f (%d answers) | %.1f %% | %.0f (%d answers) | %d |\n", e, quantile(runs, .5), len(q), 100*float64(reached)/float64(points), quantile(more, .5), len(u), differ)
	}
	fmt.Fprintln(w)
}

// spent says where the time of a verdict goes.
func spent(w io.Writer, alone []judged) {
	phases := []struct{ doing, says string }{
		{"starting", "start"},
		{"preparing databases and virtual hosts", "databases, virtual hosts"},
		{"running it without faults", "without faults"},
		{"crashing it", "sweep"},
	}
	fmt.Fprintf(w, "## Where the time of a verdict goes\n\nThe references, one verdict at a time, medians in seconds. A cell is compiled\nbefore that (1.5 s), and its report is drawn after it.\n\n| |")
	for _, p := range phases {
		fmt.Fprintf(w, " %s |", p.says)
	}
	fmt.Fprintf(w, " runs | a second |\n|---|%s---|---|\n", strings.Repeat("---|", len(phases)))
	for _, e := range exercises(alone) {
		list := of(alone, func(j judged) bool { return j.short() == e && j.Kind == "reference" })
		fmt.Fprintf(w, "| `%s` |", e)
		sweep := 0.0
		for _, p := range phases {
			var all []float64
			for _, j := range list {
				all = append(all, j.Phases[p.doing])
			}
			sweep = quantile(all, .5)
			fmt.Fprintf(w, " %.2f |", sweep)
		}
		var runs []float64
		for _, j := range list {
			runs = append(runs, float64(j.Verdict.Runs))
		}
		fmt.Fprintf(w, " %.0f | %.0f |\n", quantile(runs, .5), quantile(runs, .5)/sweep)
	}
	fmt.Fprintln(w)
}

func exercises(list []judged) []string {
	set := map[string]bool{}
	for _, j := range list {
		set[j.short()] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// quantile returns the smallest value that a share q of all do not exceed.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}
