// Package labserver holds what must outlive a notebook's cell: the live step
// sessions. It serves their view on a loopback address of its own, and on
// JupyterLab's through jupyter-server-proxy, and with it the learner's progress
// and the last verdicts as recordings.
//
// Every request needs the token: as a bearer token, which cells send and
// JupyterLab's proxy adds, or as the cookie that a visit to /?token=… sets. No
// other origin is let in.
package labserver

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"crashcourse/pkg/state"
	"crashcourse/pkg/step"
	"crashcourse/pkg/view"
)

// Bounds.
const (
	maxSessions = 8 // the one that was used longest ago makes room
	idleTime    = 45 * time.Minute
	maxBody     = 1 << 20
	beat        = 15 * time.Second // a proxy may end a stream that says nothing
	stopTime    = 5 * time.Second
)

const cookie = "crashcourse"

// Server is a running lab server.
type Server struct {
	at     state.Lab
	host   string
	dir    string
	http   http.Server
	served chan struct{}
	log    *slog.Logger
	tidier context.CancelFunc

	mu       sync.Mutex
	sessions map[string]*session
}

type session struct {
	*step.Session
	place  string // whose tables and queues it works on: two sessions there would disturb each other
	folder string // with the copy of the cell's binary
	title  string
}

// Start serves on port, or on a free one when port is 0, until Stop. dir is the
// state folder, where it records its address, and path where JupyterLab passes
// requests on to it, below its base URL.
func Start(ctx context.Context, dir, path string, port int, log *slog.Logger) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("labserver: listen: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "sessions")); err != nil { // of a lab that was killed
		_ = listener.Close()
		return nil, fmt.Errorf("labserver: %w", err)
	}
	s := &Server{dir: dir, host: listener.Addr().String(), served: make(chan struct{}), log: log, sessions: map[string]*session{},
		at: state.Lab{URL: "http://" + listener.Addr().String(), Token: rand.Text(), Path: path}}
	s.http = http.Server{Handler: s.guard(s.routes()), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	if err := state.SaveLab(dir, s.at); err != nil {
		_ = listener.Close()
		return nil, err
	}
	go func() {
		defer close(s.served)
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("labserver: it has ended", "error", err)
		}
	}()
	tidying, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.tidier = cancel
	go s.tidy(tidying)
	return s, nil
}

// At is where the server listens.
func (s *Server) At() state.Lab { return s.at }

// Port is the port it listens on.
func (s *Server) Port() int {
	_, port, _ := net.SplitHostPort(s.host)
	n, _ := strconv.Atoi(port) // it came from a listener
	return n
}

// Stop ends all sessions and the server.
func (s *Server) Stop() error {
	s.tidier()
	s.mu.Lock()
	all := s.sessions
	s.sessions = map[string]*session{}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, one := range all {
		wg.Go(func() { s.end(one, "The lab was stopped. Start it again with `make lab`, and run the cell again.") })
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	<-s.served
	return errors.Join(err, state.RemoveLab(s.dir))
}

// tidy ends sessions that nobody uses any more.
func (s *Server) tidy(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Minute):
		}
		s.mu.Lock()
		var old []*session
		for id, one := range s.sessions {
			if time.Since(one.LastUsed()) > idleTime {
				old = append(old, one)
				delete(s.sessions, id)
			}
		}
		s.mu.Unlock()
		for _, one := range old {
			s.end(one, "Nobody has used this session for a while, so it was ended. Run the cell again for a new one.")
		}
	}
}

func (s *Server) end(one *session, why string) {
	one.Close(why)
	_ = os.RemoveAll(one.folder) // the next start removes what is left
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.index)
	mux.HandleFunc("GET /replay/{pattern}/{exercise}", s.replay)
	mux.HandleFunc("POST /sessions", s.create)
	mux.HandleFunc("GET /s/{id}/{$}", s.page)
	mux.HandleFunc("GET /s/{id}/events", s.events)
	mux.HandleFunc("POST /s/{id}/do", s.do)
	return mux
}

// guard lets in who has the token and comes from here.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'self'")
		bearer, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if given && !s.is(bearer) {
			refuse(w, http.StatusForbidden, "This is not the lab's token.")
			return
		}
		if !given {
			// A page of another site that has made its name lead here has no token,
			// and would send the cookie only under its own name. Both are refused.
			if r.Host != s.host && r.Host != "localhost:"+strconv.Itoa(s.Port()) {
				refuse(w, http.StatusForbidden, "The lab answers under "+s.host+" only.")
				return
			}
			if t := r.URL.Query().Get("token"); t != "" && r.Method == http.MethodGet && s.is(t) {
				http.SetCookie(w, &http.Cookie{Name: cookie, Value: t, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
				clean := url.URL{Path: r.URL.Path}
				http.Redirect(w, r, clean.String(), http.StatusSeeOther)
				return
			}
			if c, err := r.Cookie(cookie); err != nil || !s.is(c.Value) {
				refuse(w, http.StatusForbidden, "The lab's token is missing or wrong. Open the address that `crashcourse lab` has printed.")
				return
			}
		}
		if !sameOrigin(r) {
			refuse(w, http.StatusForbidden, "The lab does not answer to pages of other sites.")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) is(token string) bool {
	return subtle.ConstantTimeCompare([]byte(token), []byte(s.at.Token)) == 1
}

// sameOrigin says whether a browser's request comes from the page's own origin,
// or from no page at all.
func sameOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" && r.Method != http.MethodGet {
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && (u.Host == r.Host || u.Host == r.Header.Get("X-Forwarded-Host"))
}

func refuse(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": sentence}) // who has gone needs no answer
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// find returns the session of a request, or answers that there is none.
func (s *Server) find(w http.ResponseWriter, r *http.Request) *session {
	s.mu.Lock()
	one := s.sessions[r.PathValue("id")]
	s.mu.Unlock()
	if one == nil {
		refuse(w, http.StatusGone, "This session is over. Run the cell again for a new one.")
	}
	return one
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	one := s.sessions[r.PathValue("id")]
	s.mu.Unlock()
	if one == nil {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusGone)
		fmt.Fprint(w, over)
		return
	}
	page, policy, err := view.LivePage(one.title)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Security-Policy", policy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, page)
}

const over = `<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Session over</title><style>:root{color-scheme:light dark}</style>` +
	`<h1>This session is over</h1><p>Run the cell again for a new one.</p></html>`

// events streams what happens in a session.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	one := s.find(w, r)
	if one == nil {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	feed := one.Follow()
	for {
		ctx, cancel := context.WithTimeout(r.Context(), beat)
		events, err := feed.Next(ctx)
		cancel()
		switch {
		case errors.Is(err, step.ErrOver), r.Context().Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			fmt.Fprint(w, ": still here\n\n")
		case err != nil:
			s.log.Warn("labserver: follow a session", "error", err)
			return
		}
		for _, e := range events {
			b, err := json.Marshal(e)
			if err != nil {
				s.log.Warn("labserver: write an event", "error", err)
				return
			}
			fmt.Fprintf(w, "data: %s\n\n", b)
		}
		if control.Flush() != nil {
			return
		}
	}
}

func (s *Server) do(w http.ResponseWriter, r *http.Request) {
	one := s.find(w, r)
	if one == nil {
		return
	}
	// A form of another site cannot send this type without being asked first.
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		refuse(w, http.StatusUnsupportedMediaType, "A command is JSON.")
		return
	}
	var c step.Command
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		refuse(w, http.StatusBadRequest, "This is no command: "+err.Error())
		return
	}
	// What was begun is brought to its end, though the asker may go away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 90*time.Second)
	defer cancel()
	if err := one.Do(ctx, c); err != nil {
		refuse(w, http.StatusConflict, sentence(err))
		return
	}
	answer(w, struct{}{})
}

// sentence makes a sentence of an error.
func sentence(err error) string {
	t := strings.TrimPrefix(err.Error(), "step: ")
	if t == "" {
		return "It failed."
	}
	t = strings.ToUpper(t[:1]) + t[1:]
	if !strings.HasSuffix(t, ".") {
		t += "."
	}
	return t
}
