package crash_test

import (
	"context"
	"fmt"
	"os"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/state"
)

// The program moves rows from one table to another with two statements, and no
// transaction around them. The sweep finds the gap between the two.
func ExampleJudge() {
	servers, err := state.LoadServers()
	if err != nil {
		fmt.Println(err)
		return
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Println(err)
		return
	}
	hasty := crash.Program{Path: self, Env: []string{programEnv + "=hasty"}}
	v, err := crash.Judge(context.Background(), servers, movingSpec(), hasty, crash.Options{Seed: 1, Workers: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(v.Verdict, v.Failure.Invariant)
	fmt.Println(v.Failure.Fault, "before", v.Failure.Message)
	fmt.Println(v.Failure.Detail)
	// Output:
	// fail moved-once
	// kill before sync commits DELETE todo
	// row 1 was moved 2 times
}

func ExampleParseSchedule() {
	s, err := crash.ParseSchedule("kill@p1.pg1>5")
	fmt.Println(s[0].Fault, s[0].At.Index, err)
	// Output: kill 5 <nil>
}
