package steps_test

import (
	"regexp"
	"strings"
	"testing"

	"crashcourse/cmd/crashcourse/internal/steps"
)

func TestLog(t *testing.T) {
	var out strings.Builder
	log := steps.New(&out)
	step := log.Begin("go", "building %d tools", 3)
	log.Say("servers", "two\nlines")
	step.Done("built")
	log.Begin("python", "installing").Fail()
	want := regexp.MustCompile(`^ +\d+\.\ds  go +building 3 tools
 +\d+\.\ds  servers +two lines
 +\d+\.\ds  go +built \(\d+\.\ds\)
 +\d+\.\ds  python +installing
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("printed %q", out.String())
	}
}

func TestNilLogSaysNothing(t *testing.T) {
	var log *steps.Log
	step := log.Begin("x", "y")
	step.Now("z")
	step.Done("done")
	log.Say("x", "y")
}
