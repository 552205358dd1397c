package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"crashcourse/pkg/state"
)

// Diagnosis is what there is to say about the servers without starting any.
type Diagnosis struct {
	Kind     string   // environment, docker, private, or "" when nothing runs
	Why      []string // how the choice fell, or would fall
	Servers  state.Servers
	Postgres Finding
	RabbitMQ Finding
	Accounts Finding // whether the servers may run, and reach their folders
}

// Finding is the state of one thing.
type Finding struct {
	Found   string // what there is
	Problem error  // what is wrong; nil: nothing
	Fix     string // what to do about it
}

// Diagnose looks at the servers, or at what there is to start them from.
func Diagnose(ctx context.Context, opt Options) Diagnosis {
	var d Diagnosis
	s, ok, err := fromEnvironment()
	if err != nil {
		d.Kind = KindEnvironment
		f := Finding{Problem: err, Fix: "set DATABASE_URL, AMQP_URL and AMQP_MANAGEMENT_URL, or unset all three"}
		d.Postgres, d.RabbitMQ = f, f
		return d
	}
	if ok {
		d.Kind, d.Servers = KindEnvironment, s
		d.Why = []string{"DATABASE_URL and AMQP_URL are set"}
		d.look(ctx, "correct the address, or unset the three variables to have servers started")
		return d
	}
	rec, err := loadRecord(opt.State)
	if err != nil {
		d.Postgres.Problem = err
	}
	if s, err := state.LoadServersFile(opt.State); err == nil && s.Kind != KindEnvironment {
		d.Kind, d.Servers, d.Why = s.Kind, s, rec.Why
		if len(d.Why) == 0 {
			d.Why = []string{"they are recorded in servers.json"}
		}
		d.look(ctx, "run `crashcourse up`; if that does not help, `crashcourse down` and `crashcourse up`")
		d.accounts(opt)
		return d
	} else if err != nil && !errors.Is(err, state.ErrNoServers) {
		d.Postgres.Problem, d.Postgres.Fix = err, "run `crashcourse down`, then `crashcourse up`"
		return d
	}
	d.Why = []string{"DATABASE_URL and AMQP_URL are not set"}
	docker, reason := dockerServes(ctx)
	d.Why = append(d.Why, reason)
	if docker {
		d.Why = append(d.Why, "Docker would run docker/compose.yaml")
		d.Postgres.Found, d.RabbitMQ.Found = "not started; Docker would", "not started; Docker would"
		return d
	}
	d.installed(ctx)
	d.accounts(opt)
	return d
}

// look asks the servers themselves.
func (d *Diagnosis) look(ctx context.Context, fix string) {
	v, err := ProbePostgres(ctx, d.Servers.Postgres)
	d.Postgres = Finding{Found: fmt.Sprintf("%s at %s", v, Where(d.Servers.Postgres)), Problem: err}
	v, err = ProbeRabbit(ctx, d.Servers.AMQP)
	if err == nil {
		err = ProbeManagement(ctx, d.Servers.Management)
	}
	d.RabbitMQ = Finding{Found: fmt.Sprintf("%s at %s, management at %s", v, Where(d.Servers.AMQP), Where(d.Servers.Management)), Problem: err}
	for _, f := range []*Finding{&d.Postgres, &d.RabbitMQ} {
		if f.Problem != nil {
			f.Fix = fix
		}
	}
}

// installed looks at the programs that private servers would be started from.
func (d *Diagnosis) installed(ctx context.Context) {
	const get = "start Docker, or set DATABASE_URL and AMQP_URL"
	_, aptErr := exec.LookPath("apt-get")
	would := os.Geteuid() == 0 && aptErr == nil
	bin, version, err := findPostgres(ctx)
	switch {
	case errors.Is(err, errNoPostgres) && would:
		d.Postgres.Found = "not installed; `crashcourse up` will install it"
	case err != nil:
		d.Postgres = Finding{Problem: err, Fix: fix(PostgresBinEnv, "Debian, Ubuntu: apt install postgresql; macOS: brew install postgresql@17; or "+get)}
	default:
		d.Postgres.Found = fmt.Sprintf("%s installed in %s, not started", version, bin)
	}
	server, version, err := findRabbit()
	switch {
	case errors.Is(err, errNoRabbit) && would:
		d.RabbitMQ.Found = "not installed; `crashcourse up` will install it"
	case err != nil:
		d.RabbitMQ = Finding{Problem: err, Fix: fix(RabbitHomeEnv, "Debian, Ubuntu: apt install rabbitmq-server; macOS: brew install rabbitmq; or "+get)}
	default:
		d.RabbitMQ.Found = fmt.Sprintf("%s installed in %s, not started", version, server)
		if _, err := exec.LookPath("erl"); err != nil {
			d.RabbitMQ.Problem, d.RabbitMQ.Fix = errors.New("RabbitMQ is installed, but there is no Erlang (erl) on the PATH"), "add its folder to PATH"
		}
	}
	d.Why = append(d.Why, "private instances of the installed binaries would be started")
}

// accounts looks at who the private servers run as.
func (d *Diagnosis) accounts(opt Options) {
	if os.Geteuid() != 0 {
		d.Accounts.Found = "private servers run as you"
		return
	}
	pg, err := serviceAccount("postgres")
	if err == nil {
		var mq *account
		if mq, err = serviceAccount("rabbitmq"); err == nil {
			d.Accounts.Found = fmt.Sprintf("you are root; private servers run as %s and %s", pg.name, mq.name)
			if !pg.canEnter(opt.State) || !mq.canEnter(opt.State) {
				d.Accounts.Found += ", who may not enter the state folder, so their data is below /var/tmp"
			}
			return
		}
	}
	d.Accounts = Finding{Problem: err, Fix: "useradd --system postgres"}
}
