package crash

import (
	"context"
	"sync"
)

// queue hands out jobs until all are done; a job may add more.
type queue struct {
	mu      sync.Mutex
	jobs    []job
	working int
	wake    chan struct{} // closed and replaced when something changed
}

// take waits for a job. It returns false when none is left and none can come.
func (q *queue) take(ctx context.Context) (job, bool) {
	for {
		q.mu.Lock()
		if len(q.jobs) > 0 {
			b := q.jobs[0]
			q.jobs = q.jobs[1:]
			q.working++
			q.mu.Unlock()
			return b, true
		}
		if q.working == 0 {
			q.mu.Unlock()
			return job{}, false
		}
		wake := q.wake
		q.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return job{}, false
		}
	}
}

func (q *queue) add(b job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs = append(q.jobs, b)
	q.changed()
}

func (q *queue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.working--
	q.changed()
}

func (q *queue) changed() {
	close(q.wake)
	q.wake = make(chan struct{})
}
