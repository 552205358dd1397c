package crash

import (
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
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

// copyProgram copies the program to where whoever runs it may read it, and
// nobody may change it.
func copyProgram(p Program, dir string) (Program, error) {
	in, err := os.Open(p.Path)
	if err != nil {
		return p, err
	}
	defer in.Close()
	p.Path = filepath.Join(dir, "answer")
	out, err := os.OpenFile(p.Path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return p, err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return p, err
	}
	return p, out.Close()
}

func sortedKeys[V any](m map[int]V) []int { return slices.Sorted(maps.Keys(m)) }
