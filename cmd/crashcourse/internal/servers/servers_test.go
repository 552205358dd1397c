package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/cmd/crashcourse/internal/steps"
	"crashcourse/pkg/state"
)

// These tests start private servers from the installed binaries, each in a
// state folder of its own.

func options(t *testing.T) Options {
	t.Helper()
	for _, name := range []string{state.PostgresEnv, state.AMQPEnv, state.ManagementEnv} {
		t.Setenv(name, "")
	}
	return optionsIn(t, stateDir(t))
}

func optionsIn(t *testing.T, dir string) Options {
	t.Helper()
	if _, _, err := findPostgres(t.Context()); err != nil {
		t.Skip(err)
	}
	if _, _, err := findRabbit(); err != nil {
		t.Skip(err)
	}
	root, err := filepath.Abs("../../../..")
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Root: root, State: dir, Log: steps.New(t.Output())}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := Purge(ctx, opt); err != nil {
			t.Error(err)
		}
		if left := processes(opt.State); len(left) > 0 {
			t.Errorf("left running: %q", left)
		}
	})
	return opt
}

// stateDir makes a folder that every user may enter; those of t.TempDir are
// for us alone.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cc-servers-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// processes returns the command lines that name dir.
func processes(dir string) []string {
	var found []string
	entries, _ := os.ReadDir("/proc") // none elsewhere: nothing is checked then
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && strings.Contains(commandLine(pid), dir+"/") {
			found = append(found, commandLine(pid))
		}
	}
	return found
}

func up(t *testing.T, opt Options) *Lease {
	t.Helper()
	l, err := Up(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func execute(t *testing.T, s state.Servers, sql string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.Postgres)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context()) //nolint:errcheck // a test
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func kill(t *testing.T, dir, pidFile string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestLife(t *testing.T) {
	opt := options(t)

	first := up(t, opt)
	if len(first.Started) != 2 || first.Servers.Kind != KindPrivate {
		t.Fatalf("started %v of kind %s", first.Started, first.Servers.Kind)
	}
	if err := first.Keep(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"servers.json", "run.json", "postgres/server.json", "rabbitmq/server.json"} {
		info, err := os.Stat(filepath.Join(opt.State, f))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want it for our eyes only", f, info.Mode(), err)
		}
	}
	execute(t, first.Servers, "CREATE TABLE kept (x int)")

	t.Run("again is quick and starts nothing", func(t *testing.T) {
		begin := time.Now()
		again := up(t, opt)
		if len(again.Started) != 0 || again.Servers != first.Servers {
			t.Errorf("started %v", again.Started)
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("took %s", took)
		}
		if stopped, err := again.Release(t.Context()); err != nil || len(stopped) != 0 {
			t.Errorf("Release stopped %v, %v; they were kept", stopped, err)
		}
	})

	t.Run("Docker is asked for what it should do", func(t *testing.T) { fakeDocker(t, opt, first) })

	t.Run("a lost password is set anew", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(opt.State, "postgres/server.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := state.RemoveServers(opt.State); err != nil {
			t.Fatal(err)
		}
		l := up(t, opt)
		execute(t, l.Servers, "INSERT INTO kept VALUES (1)")
		if err := l.Keep(); err != nil {
			t.Fatal(err)
		}
		aside, err := filepath.Glob(filepath.Join(opt.State, "postgres/server.json.corrupt-*"))
		if err != nil || len(aside) != 1 {
			t.Errorf("set aside: %v, %v", aside, err)
		}
	})

	t.Run("after kill -9 of both", func(t *testing.T) {
		kill(t, opt.State, "postgres/pid")
		kill(t, opt.State, "rabbitmq/pid")
		l := up(t, opt)
		if len(l.Started) != 2 || l.Servers.AMQP != first.Servers.AMQP {
			t.Errorf("started %v; the ports should be the same as before", l.Started)
		}
		execute(t, l.Servers, "INSERT INTO kept VALUES (2)")
		if err := l.Keep(); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("down stops both, and then nothing", func(t *testing.T) {
		stopped, err := Down(t.Context(), opt)
		if err != nil || len(stopped) != 2 {
			t.Errorf("stopped %v, %v", stopped, err)
		}
		if left := processes(opt.State); len(left) > 0 {
			t.Errorf("left running: %q", left)
		}
		if stopped, err := Down(t.Context(), opt); err != nil || len(stopped) != 0 {
			t.Errorf("stopped %v, %v", stopped, err)
		}
		if _, err := state.LoadServersFile(opt.State); !errors.Is(err, state.ErrNoServers) {
			t.Errorf("servers.json afterwards: %v", err)
		}
	})

	t.Run("stale pid files and taken ports", func(t *testing.T) {
		// All name a process that lives: this one.
		me := strconv.Itoa(os.Getpid())
		for _, f := range []string{"postgres/pid", "rabbitmq/pid", "rabbitmq/epmd/pid"} {
			if err := os.WriteFile(filepath.Join(opt.State, f), []byte(me+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		stale := fmt.Sprintf("%s\n%s\n0\n1\n\n127.0.0.1\n", me, filepath.Join(opt.State, "postgres/data"))
		if err := os.WriteFile(filepath.Join(opt.State, "postgres/data/postmaster.pid"), []byte(stale), 0o644); err != nil {
			t.Fatal(err)
		}
		was := first.Servers.AMQP
		l, err := net.Listen("tcp4", Where(was))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // a test
		lease := up(t, opt)
		if lease.Servers.AMQP == was {
			t.Error("RabbitMQ has a port that was taken")
		}
		execute(t, lease.Servers, "INSERT INTO kept VALUES (3)")
		// Two leases: the servers go with the last.
		other := up(t, opt)
		if stopped, err := lease.Release(t.Context()); err != nil || len(stopped) != 0 {
			t.Errorf("Release stopped %v, %v; another lease is open", stopped, err)
		}
		if stopped, err := other.Release(t.Context()); err != nil || len(stopped) != 2 {
			t.Errorf("the last Release stopped %v, %v", stopped, err)
		}
	})
}

// fakeDocker stands a script in for Docker. Its containers are the private
// servers that run already.
func fakeDocker(t *testing.T, opt Options, running *Lease) {
	bin, dir := t.TempDir(), t.TempDir()
	log := filepath.Join(dir, "log")
	script := "#!/bin/sh\necho \"$@\" >>" + log + "\ncase \"$*\" in *up*) env | grep ^CRASHCOURSE_ >>" + log + "; test -n \"$FAKE_FAILS\" && echo no such image && exit 1;; esac\nexit 0\n"
	if err := os.WriteFile(filepath.Join(bin, "docker"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if ok, why := dockerEngine(t.Context()); !ok {
		t.Fatal(why)
	}
	opt.State = dir

	t.Setenv("FAKE_FAILS", "1")
	var rec record
	if _, _, err := startDocker(t.Context(), opt, &rec); err == nil || !strings.Contains(err.Error(), "no such image") || rec.Docker != "" || rec.Kind != "" {
		t.Errorf("when it fails: %v, %+v", err, rec)
	}

	t.Setenv("FAKE_FAILS", "")
	conf := dockerConf{}
	for _, p := range []struct {
		url      string
		port     *int
		password *string
	}{
		{running.Servers.Postgres, &conf.Postgres, &conf.PostgresPassword},
		{running.Servers.AMQP, &conf.AMQP, &conf.RabbitPassword},
		{running.Servers.Management, &conf.Management, &conf.RabbitPassword},
	} {
		u, err := url.Parse(p.url)
		if err != nil {
			t.Fatal(err)
		}
		if *p.port, err = strconv.Atoi(u.Port()); err != nil {
			t.Fatal(err)
		}
		*p.password, _ = u.User.Password()
	}
	if err := saveJSON(filepath.Join(dir, "docker.json"), conf); err != nil {
		t.Fatal(err)
	}
	rec.Docker = "known already, so that its ports are kept"
	s, started, err := startDocker(t.Context(), opt, &rec)
	if err != nil || len(started) != 1 || s.Postgres != running.Servers.Postgres || s.AMQP != running.Servers.AMQP {
		t.Fatalf("%v, %v", started, err)
	}
	if _, err := stopAll(t.Context(), opt, rec); err != nil {
		t.Error(err)
	}
	said, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"compose --project-name crashcourse-", "--file " + filepath.Join(opt.Root, "docker/compose.yaml") + " up --detach --wait",
		"CRASHCOURSE_POSTGRES_PORT=" + strconv.Itoa(conf.Postgres), " stop\n",
	} {
		if !strings.Contains(string(said), want) {
			t.Errorf("Docker was not asked %q but:\n%s", want, said)
		}
	}
}

// TestSideBySide starts a second pair while a first is starting, where the
// servers' users may not enter the state folder.
func TestSideBySide(t *testing.T) {
	a := options(t)
	b := optionsIn(t, t.TempDir())
	done := make(chan error, 2)
	leases := make([]*Lease, 2)
	for i, opt := range []Options{a, b} {
		go func() {
			var err error
			leases[i], err = Up(t.Context(), opt)
			done <- err
		}()
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
	if leases[0].Servers.Postgres == leases[1].Servers.Postgres || leases[0].Servers.AMQP == leases[1].Servers.AMQP {
		t.Error("both have the same servers")
	}
	rec, err := loadRecord(b.State)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 && rec.Runtime == "" {
		t.Error("no other folder was chosen for servers that may not enter the state folder")
	}
	if _, err := Purge(t.Context(), b); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(rec.Runtime); rec.Runtime != "" && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Purge left %s: %v", rec.Runtime, err)
	}
	if _, err := Probe(t.Context(), leases[0].Servers); err != nil {
		t.Errorf("the other pair: %v", err)
	}
}

// TestInterrupted cancels Up at several moments of its start-up.
func TestInterrupted(t *testing.T) {
	opt := options(t)
	for _, after := range []time.Duration{100 * time.Millisecond, 700 * time.Millisecond, 2 * time.Second} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		l, err := Up(ctx, opt)
		cancel()
		if err == nil {
			// Quicker than expected: then there is a lease to give back.
			if _, err := l.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if left := processes(opt.State); len(left) > 0 {
			t.Errorf("interrupted after %s, left running: %q", after, left)
		}
	}
}

func TestEnvironment(t *testing.T) {
	closed, err := FreePort(0)
	if err != nil {
		t.Fatal(err)
	}
	nobody := fmt.Sprintf("127.0.0.1:%d", closed)
	opt := Options{Root: "/", State: t.TempDir()}
	for _, c := range []struct{ name, pg, mq, want string }{
		{"half", "postgres://u@" + nobody, "", "set both or neither"},
		{"not an address", "hello", "amqp://u@" + nobody, "DATABASE_URL is not an address"},
		{"nobody there", "postgres://u:secret@" + nobody + "/x", "amqp://u:secret@" + nobody, "PostgreSQL at " + nobody},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(state.PostgresEnv, c.pg)
			t.Setenv(state.AMQPEnv, c.mq)
			t.Setenv(state.ManagementEnv, "")
			_, err := Up(t.Context(), opt)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want it to say %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error gives the password away: %v", err)
			}
		})
	}
}

func TestWrongPassword(t *testing.T) {
	s, err := state.LoadServers()
	if err != nil {
		t.Skip(err)
	}
	host := Where(s.AMQP)
	if _, err := ProbeRabbit(t.Context(), "amqp://nobody:secret@"+host+"/"); err == nil || !strings.Contains(err.Error(), "refuses the user or the password") {
		t.Errorf("RabbitMQ: %v", err)
	}
	if err := ProbeManagement(t.Context(), "http://nobody:secret@"+Where(s.Management)); err == nil || !strings.Contains(err.Error(), "refuses the user or the password") {
		t.Errorf("management: %v", err)
	}
	_, err = ProbePostgres(t.Context(), "postgres://nobody:secret@"+Where(s.Postgres)+"/postgres?sslmode=disable")
	if err == nil || !strings.Contains(err.Error(), "refuses the user or the password") {
		t.Errorf("PostgreSQL: %v", err)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"3.9.13", "3.10", true}, {"3.10.8", "3.10", false}, {"4.1.0", "3.10", false}, {"3", "3.10", true}, {"3.12.0-rc.1", "3.10", false},
	} {
		if got := older(c.a, c.b); got != c.want {
			t.Errorf("older(%q, %q) = %v", c.a, c.b, got)
		}
	}
}
