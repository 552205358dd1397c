package servers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// postgresUser is the superuser of a private PostgreSQL.
const postgresUser = "crashcourse"

// startPatience and stopPatience bound what a server may take for either.
const (
	startPatience = 3 * time.Minute
	stopPatience  = 40 * time.Second
)

// postgres is a private PostgreSQL. Its folder holds data/, log, pid and
// server.json.
type postgres struct {
	daemon
	bin     string // folder of its programs
	version string
	conf    postgresConf
}

// postgresConf is server.json: what must be the same at the next start.
type postgresConf struct {
	Port     int    `json:"port"`
	Password string `json:"password"`
}

// newPostgres finds the programs. A folder whose data was made by an installed
// version gets that version again.
func newPostgres(ctx context.Context, opt Options) (*postgres, error) {
	bin, version, err := findPostgres(ctx)
	if err != nil {
		return nil, err
	}
	a, err := serviceAccount("postgres")
	if err != nil {
		return nil, err
	}
	if err := a.reachable("PostgreSQL", bin); err != nil {
		return nil, err
	}
	return &postgres{daemon: daemon{account: a}, bin: bin, version: version}, nil
}

func (p *postgres) place(dir string) {
	p.name, p.dir = "PostgreSQL", dir
	p.marker = "-D " + p.data() + " "
}

func (p *postgres) data() string     { return filepath.Join(p.dir, "data") }
func (p *postgres) confFile() string { return filepath.Join(p.dir, "server.json") }

func (p *postgres) url() string {
	return (&url.URL{
		Scheme: "postgres", User: url.UserPassword(postgresUser, p.conf.Password),
		Host: loopback(p.conf.Port), Path: "/postgres", RawQuery: "sslmode=disable",
	}).String()
}

// env is all that the server gets of our environment: nothing of ours, such
// as keys or PG* variables, has business there.
func (p *postgres) env() []string {
	return []string{"PATH=" + p.bin + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + p.dir, "LC_ALL=C", "TZ=UTC"}
}

// start starts the server unless it runs, and reports whether it did.
func (p *postgres) start(ctx context.Context, opt Options) (bool, error) {
	if err := p.account.own(p.dir); err != nil {
		return false, err
	}
	if err := loadJSON(p.confFile(), &p.conf); err != nil {
		return false, err
	}
	p.adopt()
	if p.pid() != 0 {
		if p.conf.Password != "" {
			if _, err := ProbePostgres(ctx, p.url()); err == nil {
				return false, nil
			}
		}
		// It runs and does not serve us: starting, stuck, or its password is
		// lost. Begin anew.
		if _, err := p.stop(ctx, p.signal(), stopPatience/2); err != nil {
			return false, err
		}
	}
	step := opt.Log.Begin("postgres", "starting a private PostgreSQL %s in %s", p.version, p.dir)
	if err := p.prepare(ctx); err != nil {
		step.Fail()
		return false, err
	}
	const tries = 5
	for try := 1; ; try++ {
		err := p.launch(ctx)
		if err == nil {
			step.Done("PostgreSQL %s listens on %s", p.version, loopback(p.conf.Port))
			return true, nil
		}
		if stopErr := p.stopDaemon(context.WithoutCancel(ctx)); stopErr != nil {
			err = errors.Join(err, stopErr)
		}
		// Two things pass by themselves: somebody else took the port, and the
		// children of a killed server have not all noticed yet.
		again := errors.Is(err, errExited) && p.logSays("could not bind", "pre-existing shared memory block", "Address already in use")
		if !again || try == tries {
			step.Fail()
			if p.logSays("No space left on device") {
				err = fmt.Errorf("servers: the disk of %s is full: free some space, or set CRASHCOURSE_STATE to a folder on another disk (%w)", p.dir, err)
			}
			return false, err
		}
		select {
		case <-ctx.Done():
			step.Fail()
			return false, ctx.Err()
		case <-time.After(time.Duration(try) * 300 * time.Millisecond):
		}
	}
}

// prepare makes the data folder if there is none, and sees to a password.
func (p *postgres) prepare(ctx context.Context) error {
	made, err := os.ReadFile(filepath.Join(p.data(), "PG_VERSION"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("servers: %w", err)
	}
	major, _, _ := strings.Cut(p.version, ".")
	if was := strings.TrimSpace(string(made)); err == nil && was != major {
		return fmt.Errorf("servers: the data in %s was made by PostgreSQL %s, but %s is installed: install %s again, or remove the data with `crashcourse down --purge`", p.data(), was, p.version, was)
	}
	known := p.conf.Password != ""
	if !known {
		p.conf.Password = secret()
	}
	if err != nil {
		if err := p.initialise(ctx); err != nil {
			return err
		}
	} else if !known {
		if err := p.setPassword(ctx); err != nil {
			return err
		}
	}
	return saveJSON(p.confFile(), p.conf)
}

func (p *postgres) initialise(ctx context.Context) error {
	// In a folder of another name first, so that a killed initdb leaves no
	// half of a database behind.
	fresh := filepath.Join(p.dir, "data.new")
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	pw := filepath.Join(p.dir, "password")
	if err := p.account.give(pw, []byte(p.conf.Password+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(pw) //nolint:errcheck // the next start writes a new one
	out, err := p.account.run(ctx, p.dir, p.env(), "", filepath.Join(p.bin, "initdb"),
		"-D", fresh, "-U", postgresUser, "--pwfile", pw, "--auth=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync")
	if err != nil {
		if strings.Contains(out, "No space left on device") {
			return fmt.Errorf("servers: the disk of %s is full: free some space, or set CRASHCOURSE_STATE to a folder on another disk", p.dir)
		}
		return fmt.Errorf("servers: initdb in %s: %w: %s", p.dir, err, strings.TrimSpace(lastLines(out, 3)))
	}
	if err := os.Rename(fresh, p.data()); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	return nil
}

// setPassword gives a server whose password was lost a new one, in single-user
// mode, which asks for none.
func (p *postgres) setPassword(ctx context.Context) error {
	out, err := p.account.run(ctx, p.dir, p.env(), fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'\n", postgresUser, p.conf.Password),
		filepath.Join(p.bin, "postgres"), "--single", "-D", p.data(), "postgres")
	if err != nil {
		return fmt.Errorf("servers: set PostgreSQL's password anew: %w: %s", err, strings.TrimSpace(lastLines(out, 3)))
	}
	return nil
}

func (p *postgres) launch(ctx context.Context) error {
	if err := freePorts(&p.conf.Port); err != nil {
		return err
	}
	if err := saveJSON(p.confFile(), p.conf); err != nil {
		return err
	}
	if err := p.clearStalePid(); err != nil {
		return err
	}
	argv := []string{filepath.Join(p.bin, "postgres"), "-D", p.data()}
	for _, setting := range []string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(p.conf.Port),
		"unix_socket_directories=", // no sockets: nothing to leave behind, no path too long
		"password_encryption=scram-sha-256",
		"wal_level=logical",
		"max_connections=200",
		"max_replication_slots=64",
		"max_wal_senders=64",
		"max_slot_wal_keep_size=1GB", // a forgotten slot must not fill the disk
		// A killed client's session must end at once, and its locks with it.
		"client_connection_check_interval=100ms",
		"fsync=on",
		"jit=off",
		"huge_pages=off",
	} {
		argv = append(argv, "-c", setting)
	}
	if err := p.daemon.start(p.env(), argv...); err != nil {
		return err
	}
	return p.await(ctx, startPatience, func(ctx context.Context) error {
		_, err := ProbePostgres(ctx, p.url())
		return err
	})
}

// postmaster returns the process that the data folder's own pid file names.
func (p *postgres) postmaster() (pid int, ours bool) {
	b, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0, false
	}
	return pid, strings.Contains(commandLine(pid), p.marker)
}

// adopt writes our pid file when the server runs but the file was lost.
func (p *postgres) adopt() {
	if pid, ours := p.postmaster(); ours && p.pid() == 0 {
		_ = p.account.give(p.pidFile(), []byte(strconv.Itoa(pid)+"\n"), 0o600) // then it stays unknown, and the port tells
	}
}

// clearStalePid removes a pid file of a killed server whose number another
// process has by now: PostgreSQL takes that one for itself and refuses to
// start. (It still finds out by its shared memory when children live on.)
func (p *postgres) clearStalePid() error {
	pid, ours := p.postmaster()
	if pid == 0 || ours {
		return nil
	}
	if err := os.Remove(filepath.Join(p.data(), "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("servers: %w", err)
	}
	return nil
}

func (p *postgres) stopDaemon(ctx context.Context) error {
	_, err := p.stop(ctx, p.signal(), stopPatience/2)
	return err
}

// postgresFolders returns where PostgreSQL's programs may be.
func postgresFolders() (dirs []string) {
	if dir := chosenPostgres(); dir != "" {
		return []string{dir}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin",
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, _ := filepath.Glob(pattern) // the patterns are well formed
		dirs = append(dirs, found...)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// findPostgres returns the folder of the newest installed PostgreSQL, or the
// one that the user has chosen.
func findPostgres(ctx context.Context) (bin, version string, err error) {
	var best int
	for _, dir := range postgresFolders() {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			continue
		}
		// postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)
		words := strings.Fields(string(out))
		if len(words) < 3 {
			continue
		}
		major, err := strconv.Atoi(strings.TrimFunc(strings.SplitN(words[2], ".", 2)[0], func(r rune) bool { return r < '0' || r > '9' }))
		if err == nil && major > best {
			best, bin, version = major, dir, words[2]
		}
	}
	switch {
	case ctx.Err() != nil:
		return "", "", ctx.Err()
	case best == 0 && chosenPostgres() != "":
		return "", "", fmt.Errorf("servers: %s is %s, where there is no postgres that runs, with its initdb: correct it, or unset it", PostgresBinEnv, chosenPostgres())
	case best == 0:
		return "", "", fmt.Errorf("servers: %w", errNoPostgres)
	case best < minPostgres:
		return "", "", fmt.Errorf("servers: PostgreSQL %s in %s is too old: %d or newer is needed; install one, start Docker, or set DATABASE_URL and AMQP_URL", version, bin, minPostgres)
	}
	return bin, version, nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " / ")
}
