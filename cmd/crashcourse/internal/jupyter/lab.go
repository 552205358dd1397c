package jupyter

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"crashcourse/pkg/state"
)

// Lab is a running JupyterLab.
type Lab struct {
	base  string // http://127.0.0.1:port
	token string
	open  string // path that opens first
	pid   int
	done  chan struct{}
	err   error // why it ended; read after done
}

// saved is <state>/jupyter/server.json: a tab that was left open finds the
// next JupyterLab at the same address, with the same token.
type saved struct {
	Port  int    `json:"port"`
	Token string `json:"token"`
}

// ErrPortTaken is returned by [Start] when the port that was asked for is in use.
var ErrPortTaken = errors.New("port is taken")

// Start runs JupyterLab on port, or on a free one when port is 0, and returns
// when it answers. freePort draws a port, the preferred one if it is free.
// JupyterLab ends when [Lab.Stop] is called and, on Linux, when this process
// is killed.
func Start(ctx context.Context, opt Options, port int, freePort func(prefer int) (int, error)) (*Lab, error) {
	endOrphans(ctx, opt)
	sweep(opt)
	path := opt.path("jupyter", "server.json")
	var s saved
	if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &s) != nil {
		s = saved{} // nothing is lost but an address
	}
	if s.Token == "" {
		s.Token = strings.ToLower(rand.Text())
	}
	want := port
	if want == 0 {
		want = s.Port
	}
	got, err := freePort(want)
	if err != nil {
		return nil, err
	}
	if port != 0 && got != port {
		return nil, fmt.Errorf("jupyter: %w: somebody listens on 127.0.0.1:%d already: choose another with --port, or leave it out", ErrPortTaken, port)
	}
	s.Port = got
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("jupyter: %w", err)
	}
	for _, dir := range []string{"jupyter", "jupyter/runtime"} {
		if err := os.MkdirAll(opt.path(dir), 0o700); err != nil {
			return nil, fmt.Errorf("jupyter: %w", err)
		}
	}
	if err := state.WriteFile(path, b, 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(opt.path("jupyter", "log"))
	if err != nil {
		return nil, fmt.Errorf("jupyter: %w", err)
	}
	defer log.Close()

	cmd := exec.Command(opt.Python(), "-m", "jupyterlab", "--ServerApp.port="+strconv.Itoa(s.Port))
	cmd.Dir = opt.Root
	// The token goes by the environment: anybody can read a command line.
	cmd.Env = append(Environ(opt, os.Environ()), "JUPYTER_TOKEN="+s.Token)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	dieWithParent(cmd.SysProcAttr)

	cfg := serverConfig(opt)["ServerApp"].(map[string]any)
	l := &Lab{base: fmt.Sprintf("http://127.0.0.1:%d%s", s.Port, opt.base()), token: s.Token, open: strings.TrimPrefix(cfg["default_url"].(string), opt.base()), done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel watches the thread that started the child, not the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			l.err = cmd.Wait()
			close(l.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("jupyter: start JupyterLab: %w", err)
	}
	l.pid = cmd.Process.Pid
	step := opt.Log.Begin("jupyter", "starting JupyterLab on 127.0.0.1:%d", s.Port)
	if err := l.await(ctx, opt); err != nil {
		step.Fail()
		return nil, errors.Join(err, l.Stop())
	}
	step.Done("JupyterLab answers")
	return l, nil
}

func (l *Lab) await(ctx context.Context, opt Options) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		if err := l.get(ctx, "/api/status"); err == nil {
			return nil
		}
		select {
		case <-l.done:
			b, _ := os.ReadFile(opt.path("jupyter", "log")) // then there is nothing to show
			text := lastText(b)
			if strings.Contains(string(b), "is already in use") {
				return fmt.Errorf("jupyter: %w: another program took it just now: try again", ErrPortTaken)
			}
			return fmt.Errorf("jupyter: JupyterLab ended while it started (%v): %s (more in %s)", l.err, text, opt.path("jupyter", "log"))
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("jupyter: JupyterLab does not answer after two minutes: see %s", opt.path("jupyter", "log"))
			}
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func lastText(b []byte) string {
	all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(all[len(all)-1])
}

func (l *Lab) get(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "token "+l.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// URL returns the address for a browser, with its token.
func (l *Lab) URL() string { return l.base + l.open + "?token=" + url.QueryEscape(l.token) }

// Proxied returns the address of a loopback port as seen through JupyterLab.
func (l *Lab) Proxied(hostPort string) string {
	_, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return ""
	}
	return l.base + "/proxy/" + port + "/?token=" + url.QueryEscape(l.token)
}

// Done is closed when JupyterLab has ended.
func (l *Lab) Done() <-chan struct{} { return l.done }

// Err returns why JupyterLab ended, once [Lab.Done] is closed.
func (l *Lab) Err() error { return l.err }

// Stop ends JupyterLab and its kernels and waits for them.
func (l *Lab) Stop() error {
	_ = syscall.Kill(l.pid, syscall.SIGTERM) // it may have ended already
	select {
	case <-l.done:
	case <-time.After(15 * time.Second):
		_ = syscall.Kill(-l.pid, syscall.SIGKILL)
		<-l.done
	}
	return nil
}

// endOrphans ends a JupyterLab of this state folder whose `crashcourse lab`
// was killed. The caller has made sure that no other lab runs.
func endOrphans(ctx context.Context, opt Options) {
	files, _ := filepath.Glob(opt.path("jupyter", "runtime", "jpserver-*.json")) // the pattern is well formed
	for _, f := range files {
		var s struct {
			URL   string `json:"url"`
			Token string `json:"token"`
			PID   int    `json:"pid"`
		}
		b, err := os.ReadFile(f)
		if err == nil && json.Unmarshal(b, &s) == nil && s.URL != "" {
			shutdown(ctx, s.URL, s.Token)
			// Kernels end one after the other; its port is wanted back.
			for range 100 {
				if errors.Is(syscall.Kill(s.PID, 0), syscall.ESRCH) {
					break
				}
				if (&Lab{base: strings.TrimSuffix(s.URL, "/"), token: s.Token}).get(ctx, "/api") != nil {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
		_ = os.Remove(f) // a stale one is harmless
	}
}

func shutdown(ctx context.Context, base, token string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(base, "/")+"/api/shutdown", nil)
	if err != nil {
		return
	}
	req.Header.Set("Authorization", "token "+token)
	if res, err := http.DefaultClient.Do(req); err == nil {
		_ = res.Body.Close()
	}
}
