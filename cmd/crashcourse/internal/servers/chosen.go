package servers

import (
	"fmt"
	"os"
	"path/filepath"
)

// Variables that name the programs of private servers, in place of the newest
// that are installed. Erlang is always the one on the PATH.
const (
	PostgresBinEnv = "CRASHCOURSE_POSTGRES_BIN"  // the folder of postgres and initdb
	RabbitHomeEnv  = "CRASHCOURSE_RABBITMQ_HOME" // the folder of sbin/rabbitmq-server and plugins/
)

// chosen tells whether the user has named programs.
func chosen() (why string, ok bool) {
	for _, name := range []string{PostgresBinEnv, RabbitHomeEnv} {
		if os.Getenv(name) != "" {
			return name + " is set", true
		}
	}
	return "", false
}

// reachable says so when the account that a server runs as may not pass
// through to its programs: they would fail to start without a reason.
func (a *account) reachable(server, dir string) error {
	if a.canEnter(dir) {
		return nil
	}
	return fmt.Errorf("servers: user %s, as which %s runs, may not enter %s: put it where every user may go, such as /opt", a.name, server, dir)
}

// chosenPostgres returns the folder that the user has named, or "".
func chosenPostgres() string { return folder(PostgresBinEnv) }

// chosenRabbit returns the server's script that the user has named, or "".
func chosenRabbit() string {
	home := folder(RabbitHomeEnv)
	if home == "" {
		return ""
	}
	return filepath.Join(home, "sbin", "rabbitmq-server")
}

// folder reads a variable that names a folder. The server starts in a folder of
// its own, from where a relative path would lead elsewhere.
func folder(name string) string {
	dir := os.Getenv(name)
	if abs, err := filepath.Abs(dir); err == nil && dir != "" {
		return abs
	}
	return dir
}

// fix is what to do about programs that do not serve: advice, unless the user
// has named them.
func fix(name, advice string) string {
	if os.Getenv(name) != "" {
		return "correct " + name + ", or unset it"
	}
	return advice
}
