package labserver

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"crashcourse/pkg/step"
)

// create opens a session for a cell. The request carries the addresses of the
// cell's own database and virtual host, with their passwords: it is never
// logged. The cell's binary is copied, for the next cell replaces it.
func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		refuse(w, http.StatusUnsupportedMediaType, "A session is asked for in JSON.")
		return
	}
	var config step.Config
	if err := json.NewDecoder(r.Body).Decode(&config); err != nil {
		refuse(w, http.StatusBadRequest, "This is no request for a session: "+err.Error())
		return
	}
	id := strings.ToLower(rand.Text())
	folder := filepath.Join(s.dir, "sessions", id)
	if err := copyPrograms(&config, folder); err != nil {
		_ = os.RemoveAll(folder)
		refuse(w, http.StatusInternalServerError, sentence(err))
		return
	}
	place := config.Postgres
	for _, old := range s.remove(func(o *session) bool { return o.place == place }) {
		s.end(old, "A newer cell has opened another session with the same tables and queues.")
	}
	opened, err := step.Start(r.Context(), config)
	if err != nil {
		_ = os.RemoveAll(folder)
		refuse(w, http.StatusConflict, sentence(err))
		return
	}
	s.mu.Lock()
	s.sessions[id] = &session{Session: opened, place: place, folder: folder, title: config.Title}
	s.mu.Unlock()
	for _, old := range s.surplus() {
		s.end(old, "Too many sessions were open, and this one was used longest ago. Run the cell again for a new one.")
	}
	answer(w, step.Opened{Path: "s/" + id + "/"})
}

// remove takes sessions out of the list.
func (s *Server) remove(which func(*session) bool) (removed []*session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, one := range s.sessions {
		if which(one) {
			removed = append(removed, one)
			delete(s.sessions, id)
		}
	}
	return removed
}

// surplus takes out what is too much.
func (s *Server) surplus() (removed []*session) {
	for {
		s.mu.Lock()
		var oldest *session
		if len(s.sessions) > maxSessions {
			for _, one := range s.sessions {
				if oldest == nil || one.LastUsed().Before(oldest.LastUsed()) {
					oldest = one
				}
			}
		}
		s.mu.Unlock()
		if oldest == nil {
			return removed
		}
		removed = append(removed, s.remove(func(o *session) bool { return o == oldest })...)
	}
}

// copyPrograms copies each program of config into folder, once.
func copyPrograms(config *step.Config, folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make room for the session: %w", err)
	}
	copies := map[string]string{}
	take := func(w *step.Work) error {
		if w.Path == "" {
			return nil
		}
		if copies[w.Path] == "" {
			to := filepath.Join(folder, fmt.Sprintf("program%d", len(copies)))
			if err := copyFile(w.Path, to); err != nil {
				return fmt.Errorf("copy the cell's program: %w", err)
			}
			copies[w.Path] = to
		}
		w.Path = copies[w.Path]
		return nil
	}
	for i := range config.Works {
		if err := take(&config.Works[i]); err != nil {
			return err
		}
	}
	return take(&config.Prepare)
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		_ = dst.Close()
		return err
	}
	return dst.Close()
}
