package servers

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// rabbitUser is the administrator of a private RabbitMQ; it has no guest.
const rabbitUser = "crashcourse"

// rabbitMark is an argument that Erlang carries along and does not read. It
// makes the process known from the script's first moment on.
const rabbitMark = "-crashcourse"

// rabbit is a private RabbitMQ, with a port mapper (epmd) of its own. Its
// folder holds mnesia/, logs/, configuration, log, pid and server.json.
type rabbit struct {
	daemon
	epmd    daemon
	server  string // the rabbitmq-server script
	mapper  string // the epmd program
	erl     string // folder of erl
	version string
	conf    rabbitConf
}

// rabbitConf is server.json: what must be the same at the next start.
type rabbitConf struct {
	Node       string `json:"node"`
	Cookie     string `json:"cookie"`
	Password   string `json:"password"`
	Port       int    `json:"port"`
	Management int    `json:"management_port"`
	Dist       int    `json:"distribution_port"`
	Epmd       int    `json:"epmd_port"`
}

func newRabbit(ctx context.Context, opt Options) (*rabbit, error) {
	server, version, err := findRabbit()
	if err != nil {
		return nil, err
	}
	erl, err := exec.LookPath("erl")
	if err != nil {
		return nil, fmt.Errorf("servers: RabbitMQ is installed (%s) but Erlang is not on the PATH: install erlang, or add its folder to PATH", server)
	}
	mapper, err := findEpmd(ctx, erl)
	if err != nil {
		return nil, err
	}
	a, err := serviceAccount("rabbitmq")
	if err != nil {
		return nil, err
	}
	for _, program := range []string{server, erl} {
		if err := a.reachable("RabbitMQ", filepath.Dir(program)); err != nil {
			return nil, err
		}
	}
	return &rabbit{daemon: daemon{account: a}, server: server, version: version, erl: filepath.Dir(erl), mapper: mapper}, nil
}

func (r *rabbit) place(dir string) {
	r.name, r.dir = "RabbitMQ", dir
	r.marker = rabbitMark + " " + dir + " "
	r.epmd = daemon{name: "RabbitMQ's epmd", dir: filepath.Join(dir, "epmd"), account: r.account}
	if err := loadJSON(r.confFile(), &r.conf); err == nil && r.conf.Epmd != 0 {
		r.epmd.marker = r.epmdMarker()
	} else {
		r.epmd.marker = "epmd -port"
	}
}

func (r *rabbit) epmdMarker() string { return fmt.Sprintf("epmd -port %d ", r.conf.Epmd) }

func (r *rabbit) confFile() string { return filepath.Join(r.dir, "server.json") }

func (r *rabbit) url() string {
	return (&url.URL{Scheme: "amqp", User: url.UserPassword(rabbitUser, r.conf.Password), Host: loopback(r.conf.Port), Path: "/"}).String()
}

func (r *rabbit) managementURL() string {
	return (&url.URL{Scheme: "http", User: url.UserPassword(rabbitUser, r.conf.Password), Host: loopback(r.conf.Management)}).String()
}

// start starts the server unless it runs, and reports whether it did.
func (r *rabbit) start(ctx context.Context, opt Options) (bool, error) {
	for _, dir := range []string{r.dir, r.epmd.dir, filepath.Join(r.dir, "logs")} {
		if err := r.account.own(dir); err != nil {
			return false, err
		}
	}
	if r.pid() != 0 {
		if r.conf.Password != "" && r.answers(ctx) == nil {
			return false, nil
		}
		if err := r.stopDaemon(ctx); err != nil {
			return false, err
		}
	}
	step := opt.Log.Begin("rabbitmq", "starting a private RabbitMQ %s in %s", r.version, r.dir)
	const tries = 5
	for try := 1; ; try++ {
		err := r.launch(ctx)
		if err == nil {
			err = r.account.give(r.completeFile(), nil, 0o600)
		}
		if err == nil {
			step.Done("RabbitMQ %s listens on %s, its management page on http://%s", r.version, loopback(r.conf.Port), loopback(r.conf.Management))
			return true, nil
		}
		// A server that has not come up has nothing to put in order.
		if _, stopErr := r.stop(context.WithoutCancel(ctx), syscall.SIGTERM, 3*time.Second); stopErr != nil {
			err = errors.Join(err, stopErr)
		}
		if stopErr := r.stopDaemon(context.WithoutCancel(ctx)); stopErr != nil {
			err = errors.Join(err, stopErr)
		}
		taken := errors.Is(err, errExited) && (r.logSays("eaddrinuse", "address already in use", "port_conflict", "in use by another") ||
			r.epmd.logSays("address already in use", "in use"))
		if !taken || try == tries || ctx.Err() != nil {
			step.Fail()
			if r.logSays("enospc", "No space left") {
				err = fmt.Errorf("servers: the disk of %s is full: free some space, or set CRASHCOURSE_STATE to a folder on another disk (%w)", r.dir, err)
			}
			return false, err
		}
	}
}

func (r *rabbit) answers(ctx context.Context) error {
	if _, err := ProbeRabbit(ctx, r.url()); err != nil {
		return err
	}
	return ProbeManagement(ctx, r.managementURL())
}

// completeFile marks that the data folder is whole. Without it, the first
// start was broken off, and what it left behind cannot be started from.
func (r *rabbit) completeFile() string { return filepath.Join(r.dir, "complete") }

func (r *rabbit) launch(ctx context.Context) error {
	if _, err := os.Stat(r.completeFile()); errors.Is(err, os.ErrNotExist) {
		mnesia := filepath.Join(r.dir, "mnesia")
		if err := errors.Join(os.RemoveAll(mnesia), r.account.own(mnesia)); err != nil {
			return fmt.Errorf("servers: %w", err)
		}
	}
	if err := r.configure(); err != nil {
		return err
	}
	if err := r.startEpmd(ctx); err != nil {
		return err
	}
	if err := r.daemon.start(r.env(), r.server, rabbitMark, r.dir); err != nil {
		return err
	}
	return r.await(ctx, startPatience, func(ctx context.Context) error {
		// A look at the port first: no login attempts in the server's log.
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(ctx, "tcp", loopback(r.conf.Port))
		if err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
		return r.answers(ctx)
	})
}

// env is all that the server gets of our environment, and all the settings
// that cannot be in its configuration file.
func (r *rabbit) env() []string {
	return []string{
		"PATH=" + r.erl + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
		"HOME=" + r.dir, "LANG=C.UTF-8", "LC_ALL=C.UTF-8",
		"ERL_EPMD_PORT=" + strconv.Itoa(r.conf.Epmd),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_CONF_ENV_FILE=/dev/null", // nothing of the system's own service
		"RABBITMQ_NODENAME=" + r.conf.Node,
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(r.dir, "mnesia"),
		"RABBITMQ_LOG_BASE=" + filepath.Join(r.dir, "logs"),
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(r.dir, "rabbitmq"),
		"RABBITMQ_CONFIG_FILES=" + filepath.Join(r.dir, "conf.d"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + filepath.Join(r.dir, "advanced"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(r.dir, "enabled_plugins"),
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(r.conf.Dist),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
		// The script then becomes the server, so that its pid is the server's.
		"RUNNING_UNDER_SYSTEMD=true",
	}
}

// configure draws what has to be drawn and writes the server's files.
func (r *rabbit) configure() error {
	if err := freePorts(&r.conf.Port, &r.conf.Management, &r.conf.Dist, r.epmdPort()); err != nil {
		return err
	}
	for _, s := range []*string{&r.conf.Password, &r.conf.Cookie} {
		if *s == "" {
			*s = secret()
		}
	}
	if r.conf.Node == "" {
		r.conf.Node = "crashcourse-" + strings.ToLower(secret()[:10]) + "@localhost"
	}
	if err := saveJSON(r.confFile(), r.conf); err != nil {
		return err
	}
	definitions, err := r.definitions()
	if err != nil {
		return err
	}
	conf := fmt.Sprintf(`listeners.tcp.1 = 127.0.0.1:%d
management.tcp.ip = 127.0.0.1
management.tcp.port = %d
load_definitions = %s
disk_free_limit.absolute = 100MB
log.file.level = warning
`, r.conf.Port, r.conf.Management, filepath.Join(r.dir, "definitions.json"))
	for _, f := range []struct {
		name    string
		content string
		mode    os.FileMode
	}{
		{"rabbitmq.conf", conf, 0o600},
		{"definitions.json", definitions, 0o600},
		{"enabled_plugins", "[rabbitmq_management].\n", 0o600},
		{".erlang.cookie", r.conf.Cookie, 0o400},
	} {
		if err := r.account.give(filepath.Join(r.dir, f.name), []byte(f.content), f.mode); err != nil {
			return err
		}
	}
	return nil
}

// epmdPort is the port to look for: none when our epmd holds it already.
func (r *rabbit) epmdPort() *int {
	if r.epmd.pid() != 0 {
		return new(int)
	}
	return &r.conf.Epmd
}

// definitions is read at every start, so the user's password is always the
// one we know, and guest never exists.
func (r *rabbit) definitions() (string, error) {
	salt := make([]byte, 4)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("servers: %w", err)
	}
	sum := sha256.Sum256(append(salt[:4:4], r.conf.Password...))
	b, err := json.Marshal(map[string]any{
		"users": []any{map[string]any{
			"name": rabbitUser, "tags": []string{"administrator"},
			"password_hash":     base64.StdEncoding.EncodeToString(append(salt[:4:4], sum[:]...)),
			"hashing_algorithm": "rabbit_password_hashing_sha256",
		}},
		"vhosts": []any{map[string]any{"name": "/"}},
		"permissions": []any{map[string]any{
			"user": rabbitUser, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*",
		}},
	})
	return string(b), err
}

// startEpmd starts Erlang's port mapper for this node alone. The system's, if
// there is one, is not asked: its life is not ours to manage.
func (r *rabbit) startEpmd(ctx context.Context) error {
	r.epmd.marker = r.epmdMarker()
	if r.epmd.pid() != 0 {
		return nil
	}
	err := r.epmd.start([]string{"HOME=" + r.dir}, r.mapper, "-port", strconv.Itoa(r.conf.Epmd), "-address", "127.0.0.1")
	if err != nil {
		return err
	}
	return r.epmd.await(ctx, 10*time.Second, func(ctx context.Context) error {
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(ctx, "tcp", loopback(r.conf.Epmd))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

func (r *rabbit) stopDaemon(ctx context.Context) error {
	_, err := r.stop(ctx, syscall.SIGTERM, stopPatience/2)
	_, err2 := r.epmd.stop(ctx, syscall.SIGTERM, stopPatience/4)
	return errors.Join(err, err2)
}

// rabbitScripts returns where the server's own script may be (not Debian's
// wrapper, which insists on the system's folders).
func rabbitScripts() (found []string) {
	if script := chosenRabbit(); script != "" {
		return []string{script}
	}
	for _, pattern := range []string{
		"/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server",
		"/opt/rabbitmq/sbin/rabbitmq-server", "/opt/rabbitmq_server-*/sbin/rabbitmq-server",
		"/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server", "/usr/local/opt/rabbitmq/sbin/rabbitmq-server",
	} {
		more, _ := filepath.Glob(pattern) // the patterns are well formed
		found = append(found, more...)
	}
	if path, err := exec.LookPath("rabbitmq-server"); err == nil {
		found = append(found, path)
	}
	return found
}

// findRabbit returns the script of the newest installed RabbitMQ, or the one
// that the user has chosen, and its version.
func findRabbit() (server, version string, err error) {
	for _, path := range rabbitScripts() {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			continue
		}
		v := rabbitVersion(filepath.Dir(filepath.Dir(real)))
		if v != "" && (version == "" || older(version, v)) {
			server, version = real, v
		}
	}
	switch {
	case server == "" && chosenRabbit() != "":
		return "", "", fmt.Errorf("servers: there is no RabbitMQ at %s, where %s says that it is: correct it, or unset it", chosenRabbit(), RabbitHomeEnv)
	case server == "":
		return "", "", fmt.Errorf("servers: %w", errNoRabbit)
	case older(version, minRabbit):
		return "", "", fmt.Errorf("servers: RabbitMQ %s in %s is too old: %s or newer is needed; install one, start Docker, or set DATABASE_URL and AMQP_URL", version, server, minRabbit)
	}
	return server, version, nil
}

var rabbitApp = regexp.MustCompile(`^rabbit-(\d+\.\d+\.\d+)`)

// rabbitVersion reads the version off the names in the plugins folder.
func rabbitVersion(home string) string {
	entries, err := os.ReadDir(filepath.Join(home, "plugins"))
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if m := rabbitApp.FindStringSubmatch(e.Name()); m != nil {
			return m[1]
		}
	}
	return ""
}

// findEpmd finds the port mapper that belongs to erl.
func findEpmd(ctx context.Context, erl string) (string, error) {
	if path, err := exec.LookPath("epmd"); err == nil {
		return path, nil
	}
	cmd := exec.CommandContext(ctx, erl, "-boot", "no_dot_erlang", "-noshell", "-noinput", "-eval", "io:put_chars(code:root_dir()), halt().")
	out, err := cmd.Output()
	if err == nil {
		if found, _ := filepath.Glob(filepath.Join(string(out), "erts-*", "bin", "epmd")); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("servers: Erlang (%s) comes without its port mapper epmd: add its folder to PATH", erl)
}
