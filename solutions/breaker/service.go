package breaker

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"crashcourse/exercises/breaker"
)

// mode is how the payment service answers.
type mode int

const (
	well     mode = iota // it charges, and says so
	down                 // 503, nothing is charged
	declines             // 402, nothing is charged
	hangs                // it charges, and never answers
	holds                // it waits until it is told what to do
)

// service is the payment service. It charges once for each Idempotency-Key, and for
// each request without one.
type service struct {
	mu       sync.Mutex
	dial     mode
	plan     func(nth int, payment string) mode // if set, in place of dial; from 1
	requests []*request
	charged  map[string]int  // charges by payment
	keys     map[string]bool // that were charged for
}

// request is one that has arrived. The service's mu guards it.
type request struct {
	breaker.Payment
	key    string
	at     time.Time // when it arrived
	said   int       // the status it was answered with; 0: none yet
	saidAt time.Time
	gone   bool      // it is over, without an answer
	tell   chan mode // to one that is held
}

func newService() *service { return &service{charged: map[string]int{}, keys: map[string]bool{}} }

// turn sets the dial.
func (s *service) turn(m mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dial = m
}

// all returns the requests so far, as they are now.
func (s *service) all() (out []request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		out = append(out, *r)
	}
	return out
}

// of returns the requests of a payment.
func (s *service) of(id string) (out []request) {
	for _, r := range s.all() {
		if r.ID == id {
			out = append(out, r)
		}
	}
	return out
}

// charges says how often a payment was charged.
func (s *service) charges(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.charged[id]
}

// release has the service answer n of those requests that it holds, the oldest
// first. All of them: -1.
func (s *service) release(n int, as mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.tell != nil && !r.gone && n != 0 {
			r.tell <- as // it has room
			r.tell = nil
			n--
		}
	}
}

// held counts the requests that the service holds.
func (s *service) held() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.tell != nil && !r.gone {
			n++
		}
	}
	return n
}

func (s *service) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r := &request{key: q.Header.Get("Idempotency-Key"), at: time.Now()}
	if err := json.NewDecoder(q.Body).Decode(&r.Payment); err != nil || q.Method != http.MethodPost || q.URL.Path != "/charges" {
		http.Error(w, "that is no charge", http.StatusBadRequest)
		return
	}
	_, _ = io.Copy(io.Discard, q.Body)
	s.mu.Lock()
	s.requests = append(s.requests, r)
	m := s.dial
	if s.plan != nil {
		m = s.plan(len(s.requests), r.ID)
	}
	var told chan mode
	if m == holds {
		told = make(chan mode, 1)
		r.tell = told
	}
	s.mu.Unlock()
	if m == holds {
		select {
		case m = <-told:
		case <-q.Context().Done():
			s.end(r)
			return
		}
	}
	switch m {
	case down:
		s.say(w, r, http.StatusServiceUnavailable)
	case declines:
		s.say(w, r, http.StatusPaymentRequired)
	case hangs:
		s.charge(r)
		<-q.Context().Done()
		s.end(r)
	default:
		s.charge(r)
		s.say(w, r, http.StatusCreated)
	}
}

func (s *service) charge(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.key != "" && s.keys[r.key] {
		return
	}
	s.charged[r.ID]++
	s.keys[r.key] = r.key != ""
}

// say answers. The time is from before the answer can have been seen.
func (s *service) say(w http.ResponseWriter, r *request, status int) {
	s.mu.Lock()
	r.said, r.saidAt = status, time.Now()
	s.mu.Unlock()
	w.WriteHeader(status)
}

func (s *service) end(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.gone = true
}
