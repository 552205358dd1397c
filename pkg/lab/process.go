package lab

import (
	"os"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/step"
	"crashcourse/pkg/wire"
)

// process is a process of a run. The run's goroutine owns it.
type process struct {
	*step.Process
	lane   *wire.Lane
	over   bool
	asked  bool   // to stop
	end    string // how it ended, to follow "The process"
	remark string
	to     int // the number of the last message before its end
}

// work tells the cell's binary to be work number i of call number call.
func (l *Lab) work(call, i int, name string) (step.Work, error) {
	path, err := self()
	if err != nil {
		return step.Work{}, err
	}
	return step.Work{Name: name, Path: path, Args: l.args, Env: append(os.Environ(), roleEnv+"="+role{call: call, work: i}.String())}, nil
}

// start starts the process of work number i.
func (r *run) start(i int) (*process, error) {
	w, err := r.lab.work(r.lab.calls, i, nameOf(r.works[i]))
	if err != nil {
		return nil, err
	}
	lane, err := r.proxy.Lane()
	if err != nil {
		return nil, err
	}
	p := &process{lane: lane}
	if p.Process, err = w.RunThrough(lane, r.lab.at.card.Postgres, r.lab.at.card.AMQP); err != nil {
		return nil, err
	}
	go func() {
		<-p.Ended()
		r.events <- func() { r.ended(p) }
	}()
	return p, nil
}

// ended deals with a process that has ended by itself.
func (r *run) ended(p *process) {
	switch {
	case p.over: // it was killed, and that has been dealt with
		return
	case r.hit(p, crash.Kill): // it got past a message that was held back, and ended while that waited for its kill
		r.bury(p.lane.Process())
		return
	case !p.asked:
		p.end = p.End().String()
	}
	r.close(p)
	if r.hit(p, crash.Kill) { // it had sent that message and ended before the proxy came to it
		p.end = "was killed"
	}
}
