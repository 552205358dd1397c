package servers

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChosen(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(PostgresBinEnv, dir)
	t.Setenv(RabbitHomeEnv, dir)
	if ok, why := dockerServes(t.Context()); ok || !strings.Contains(why, PostgresBinEnv) {
		t.Errorf("Docker serves: %v, %s", ok, why)
	}
	// Not what makes root install packages, which would not help.
	if _, _, err := findPostgres(t.Context()); err == nil || errors.Is(err, errNoPostgres) || !strings.Contains(err.Error(), PostgresBinEnv+" is "+dir) {
		t.Errorf("PostgreSQL: %v", err)
	}
	if _, _, err := findRabbit(); err == nil || errors.Is(err, errNoRabbit) || !strings.Contains(err.Error(), RabbitHomeEnv) {
		t.Errorf("RabbitMQ: %v", err)
	}

	for name, content := range map[string]string{
		"initdb": "#!/bin/sh\n", "postgres": "#!/bin/sh\necho 'postgres (PostgreSQL) 18.4'\n",
		"sbin/rabbitmq-server": "#!/bin/sh\n", "plugins/rabbit-4.0.5/x": "",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if bin, version, err := findPostgres(t.Context()); err != nil || bin != dir || version != "18.4" {
		t.Errorf("PostgreSQL: %s %s, %v", bin, version, err)
	}
	if _, version, err := findRabbit(); err != nil || version != "4.0.5" {
		t.Errorf("RabbitMQ: %s, %v", version, err)
	}
}
