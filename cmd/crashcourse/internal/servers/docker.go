package servers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"crashcourse/pkg/state"
)

// dockerConf is <state>/docker.json: ports and passwords of the containers.
type dockerConf struct {
	Postgres         int    `json:"postgres_port"`
	AMQP             int    `json:"amqp_port"`
	Management       int    `json:"management_port"`
	PostgresPassword string `json:"postgres_password"`
	RabbitPassword   string `json:"rabbitmq_password"`
}

// dockerEngine reports whether a Docker engine answers and compose is there,
// with a sentence that says so.
func dockerEngine(ctx context.Context) (bool, string) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		return false, "Docker is not installed"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := exec.CommandContext(ctx, docker, "info", "--format", "{{.ServerVersion}}").Run(); err != nil {
		return false, "Docker is installed, but no engine answers"
	}
	if _, err := composeCommand(ctx); err != nil {
		return false, "a Docker engine answers, but its compose command is missing"
	}
	return true, "a Docker engine answers"
}

// dockerServes is [dockerEngine], unless the user has named programs: Docker's
// servers would be others.
func dockerServes(ctx context.Context) (bool, string) {
	if why, ok := chosen(); ok {
		return false, why
	}
	return dockerEngine(ctx)
}

func composeCommand(ctx context.Context) ([]string, error) {
	if exec.CommandContext(ctx, "docker", "compose", "version").Run() == nil {
		return []string{"docker", "compose"}, nil
	}
	if path, err := exec.LookPath("docker-compose"); err == nil {
		return []string{path}, nil
	}
	return nil, errors.New("servers: Docker has no compose command")
}

// startDocker brings the containers up. It fills rec.Docker as soon as there
// may be something to take down.
func startDocker(ctx context.Context, opt Options, rec *record) (s state.Servers, started []string, err error) {
	var conf dockerConf
	path := filepath.Join(opt.State, "docker.json")
	if err := loadJSON(path, &conf); err != nil {
		return s, nil, err
	}
	if rec.Docker == "" {
		// Ports that our own running containers hold must not be drawn anew.
		if err := freePorts(&conf.Postgres, &conf.AMQP, &conf.Management); err != nil {
			return s, nil, err
		}
	}
	for _, p := range []*string{&conf.PostgresPassword, &conf.RabbitPassword} {
		if *p == "" {
			*p = secret()
		}
	}
	if err := saveJSON(path, conf); err != nil {
		return s, nil, err
	}
	sum := sha256.Sum256([]byte(opt.State))
	rec.Docker = "crashcourse-" + hex.EncodeToString(sum[:6])
	rec.Kind = KindDocker
	if err := saveRecord(opt.State, *rec); err != nil {
		return s, nil, err
	}
	step := opt.Log.Begin("docker", "starting PostgreSQL and RabbitMQ in containers (the first time their images are fetched)")
	out, err := compose(ctx, opt, rec.Docker, conf, "up", "--detach", "--wait", "--wait-timeout", "300")
	if err != nil {
		step.Fail()
		downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer cancel()
		err = errors.Join(fmt.Errorf("servers: docker compose up: %w: %s", err, lastLines(out, 3)), dockerDown(downCtx, opt, rec.Docker, false))
		rec.Docker, rec.Kind = "", ""
		return s, nil, errors.Join(err, saveRecord(opt.State, *rec))
	}
	s = conf.servers()
	v, err := probe(ctx, s)
	if err != nil {
		step.Fail()
		return s, nil, err
	}
	step.Done("PostgreSQL %s and RabbitMQ %s run in containers", v.Postgres, v.RabbitMQ)
	return s, []string{"Docker containers"}, nil
}

func (c dockerConf) servers() state.Servers {
	rabbit := url.UserPassword(rabbitUser, c.RabbitPassword)
	return state.Servers{
		Postgres: (&url.URL{
			Scheme: "postgres", User: url.UserPassword(postgresUser, c.PostgresPassword),
			Host: loopback(c.Postgres), Path: "/postgres", RawQuery: "sslmode=disable",
		}).String(),
		AMQP:       (&url.URL{Scheme: "amqp", User: rabbit, Host: loopback(c.AMQP), Path: "/"}).String(),
		Management: (&url.URL{Scheme: "http", User: rabbit, Host: loopback(c.Management)}).String(),
		Kind:       KindDocker,
	}
}

// dockerDown stops the containers; purge removes them and their data.
func dockerDown(ctx context.Context, opt Options, project string, purge bool) error {
	var conf dockerConf
	if err := loadJSON(filepath.Join(opt.State, "docker.json"), &conf); err != nil {
		return err
	}
	args := []string{"stop"}
	if purge {
		args = []string{"down", "--volumes"}
	}
	if out, err := compose(ctx, opt, project, conf, args...); err != nil {
		return fmt.Errorf("servers: docker compose %s: %w: %s", strings.Join(args, " "), err, lastLines(out, 3))
	}
	return nil
}

func compose(ctx context.Context, opt Options, project string, conf dockerConf, args ...string) (string, error) {
	command, err := composeCommand(ctx)
	if err != nil {
		return "", err
	}
	argv := append(command, "--project-name", project, "--file", filepath.Join(opt.Root, "docker", "compose.yaml"))
	argv = append(argv, args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	(*account)(nil).as(cmd)
	cmd.Env = append(os.Environ(),
		"CRASHCOURSE_POSTGRES_PORT="+strconv.Itoa(conf.Postgres),
		"CRASHCOURSE_AMQP_PORT="+strconv.Itoa(conf.AMQP),
		"CRASHCOURSE_MANAGEMENT_PORT="+strconv.Itoa(conf.Management),
		"CRASHCOURSE_POSTGRES_PASSWORD="+conf.PostgresPassword,
		"CRASHCOURSE_RABBITMQ_PASSWORD="+conf.RabbitPassword,
	)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}
