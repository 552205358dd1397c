// Package servers finds PostgreSQL and RabbitMQ for the course, or starts
// them, and stops what it started.
//
// It looks in this order, and takes the first that serves:
//
//  1. the addresses in DATABASE_URL, AMQP_URL and AMQP_MANAGEMENT_URL;
//  2. servers that an earlier call started for this state folder and that
//     still answer;
//  3. Docker, when an engine answers: docker/compose.yaml (but not where
//     [PostgresBinEnv] or [RabbitHomeEnv] name programs);
//  4. private instances of the installed binaries, which live in the state
//     folder, listen on free loopback ports and never touch the system's own
//     services. On Debian and Ubuntu, root has the packages installed first.
//
// [Up] returns a [Lease]. [Lease.Keep] leaves the servers running for whoever
// comes next; [Lease.Release] stops them, unless they ran before or somebody
// else still holds a lease. [Down] stops what was started, whoever holds it.
//
// A lock file keeps two calls for one state folder apart. Two state folders
// have nothing in common: ports, passwords, node names and cookies are drawn
// for each.
package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"crashcourse/cmd/crashcourse/internal/steps"
	"crashcourse/pkg/state"
)

// Kinds of servers, as [state.Servers.Kind] names them.
const (
	KindEnvironment = "environment"
	KindDocker      = "docker"
	KindPrivate     = "private"
)

// Options says where the servers of one checkout live. Both folders must be
// absolute.
type Options struct {
	Root  string     // the repository
	State string     // its state folder; must exist
	Log   *steps.Log // told what is being done; nil: nobody
}

// Lease is the right to use the servers until [Lease.Keep] or [Lease.Release].
type Lease struct {
	Servers state.Servers
	Why     []string // how the choice fell, a sentence a line
	Started []string // what this call had to start; empty when all ran already

	opt Options
	use *lock // shared with other leases; nil for servers of the environment
}

// Up finds or starts the two servers. It returns when both answer and their
// versions serve. When ctx ends first, whatever it had begun to start is
// stopped again.
func Up(ctx context.Context, opt Options) (*Lease, error) {
	if s, ok, err := fromEnvironment(); ok || err != nil {
		if err != nil {
			return nil, err
		}
		if _, err := probe(ctx, s); err != nil {
			return nil, err
		}
		return &Lease{Servers: s, Why: []string{"DATABASE_URL and AMQP_URL are set"}, opt: opt}, nil
	}
	up, err := lockFile(ctx, filepath.Join(opt.State, "up.lock"), true, func() {
		opt.Log.Say("servers", "another crashcourse is starting or stopping them: waiting for it")
	})
	if err != nil {
		return nil, fmt.Errorf("servers: wait for another crashcourse: %w", err)
	}
	defer up.release()
	lease, err := upLocked(ctx, opt)
	if err != nil {
		return nil, err
	}
	// Others hold this lock shared as well, or nobody holds it: it is taken
	// exclusively only under up.lock.
	lease.use, err = lockFile(ctx, filepath.Join(opt.State, "use.lock"), false, nil)
	if err != nil {
		return nil, errors.Join(err, stopAfterFailure(opt, lease.Started))
	}
	return lease, nil
}

func upLocked(ctx context.Context, opt Options) (*Lease, error) {
	rec, err := loadRecord(opt.State)
	if err != nil {
		return nil, err
	}
	// Quick way out: what is recorded answers.
	if s, err := state.LoadServersFile(opt.State); err == nil && s.Kind != KindEnvironment {
		if _, err := probe(ctx, s); err == nil {
			why := rec.Why
			if len(why) == 0 {
				why = []string{"they are recorded in servers.json and answer"}
			}
			return &Lease{Servers: s, Why: why, opt: opt}, nil
		}
	}
	var why []string
	dockerAnswers, reason := dockerServes(ctx)
	why = append(why, "DATABASE_URL and AMQP_URL are not set", reason)
	if dockerAnswers && rec.Kind != KindPrivate {
		s, started, err := startDocker(ctx, opt, &rec)
		if err == nil {
			return settle(ctx, opt, rec, s, KindDocker, append(why, "Docker runs docker/compose.yaml"), started)
		}
		if ctx.Err() != nil {
			return nil, err
		}
		opt.Log.Say("servers", "Docker did not start them (%v): trying installed binaries", err)
		why = append(why, fmt.Sprintf("Docker did not start them: %v", err))
	}
	s, started, err := startPrivate(ctx, opt, &rec)
	if err != nil {
		return nil, err
	}
	return settle(ctx, opt, rec, s, KindPrivate, append(why, "private instances of the installed binaries"), started)
}

// settle writes down what runs now.
func settle(ctx context.Context, opt Options, rec record, s state.Servers, kind string, why, started []string) (*Lease, error) {
	s.Kind = kind
	rec.Kind, rec.Why = kind, why
	// Until somebody keeps them, they go with the last lease. One of a pair
	// that had died shares the fate of the other.
	if len(started) == len(all(kind)) {
		rec.Temporary = true
	}
	err := saveRecord(opt.State, rec)
	if err == nil {
		err = state.SaveServers(opt.State, s)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, stopAfterFailure(opt, started))
	}
	return &Lease{Servers: s, Why: why, Started: started, opt: opt}, nil
}

// all is what a call that finds nothing running starts.
func all(kind string) []string {
	if kind == KindDocker {
		return []string{"Docker containers"}
	}
	return []string{"PostgreSQL", "RabbitMQ"}
}

// Keep ends the lease and leaves the servers running until [Down].
func (l *Lease) Keep() error {
	if l.use == nil {
		return nil
	}
	defer l.use.release()
	rec, err := loadRecord(l.opt.State)
	if err != nil || !rec.Temporary {
		return err
	}
	rec.Temporary = false
	return saveRecord(l.opt.State, rec)
}

// Release ends the lease. It stops the servers when a lease started them,
// nobody kept them, and no other lease is open; it says what it stopped.
func (l *Lease) Release(ctx context.Context) ([]string, error) {
	if l.use == nil {
		return nil, nil
	}
	up, err := lockFile(ctx, filepath.Join(l.opt.State, "up.lock"), true, nil)
	if err != nil {
		l.use.release()
		return nil, fmt.Errorf("servers: wait for another crashcourse: %w", err)
	}
	defer up.release()
	l.use.release()
	last, err := tryLock(filepath.Join(l.opt.State, "use.lock"))
	if err != nil || last == nil {
		return nil, err
	}
	defer last.release()
	rec, err := loadRecord(l.opt.State)
	if err != nil || !rec.Temporary {
		return nil, err
	}
	return stopAll(ctx, l.opt, rec)
}

// Down stops the servers that were started for this state folder and says
// which. Servers that somebody else started are left alone.
func Down(ctx context.Context, opt Options) ([]string, error) {
	up, err := lockFile(ctx, filepath.Join(opt.State, "up.lock"), true, func() {
		opt.Log.Say("servers", "another crashcourse is starting or stopping them: waiting for it")
	})
	if err != nil {
		return nil, fmt.Errorf("servers: wait for another crashcourse: %w", err)
	}
	defer up.release()
	rec, err := loadRecord(opt.State)
	if err != nil {
		return nil, err
	}
	return stopAll(ctx, opt, rec)
}

// Purge is [Down], and removes the servers' data as well.
func Purge(ctx context.Context, opt Options) ([]string, error) {
	stopped, err := Down(ctx, opt)
	if err != nil {
		return stopped, err
	}
	rec, err := loadRecord(opt.State)
	if err != nil {
		return stopped, err
	}
	if rec.Docker != "" {
		if err := dockerDown(ctx, opt, rec.Docker, true); err != nil {
			return stopped, err
		}
	}
	for _, dir := range []string{privateFolder(opt.State, rec, "postgres"), privateFolder(opt.State, rec, "rabbitmq")} {
		if err := os.RemoveAll(dir); err != nil {
			return stopped, fmt.Errorf("servers: remove the servers' data: %w", err)
		}
	}
	if rec.Runtime != "" {
		if err := os.RemoveAll(rec.Runtime); err != nil {
			return stopped, fmt.Errorf("servers: remove the servers' data: %w", err)
		}
	}
	return stopped, os.RemoveAll(filepath.Join(opt.State, "run.json"))
}

func stopAll(ctx context.Context, opt Options, rec record) ([]string, error) {
	var stopped []string
	var errs []error
	if rec.Docker != "" {
		if err := dockerDown(ctx, opt, rec.Docker, false); err != nil {
			errs = append(errs, err)
		} else {
			stopped = append(stopped, "Docker containers")
		}
		rec.Docker = ""
	}
	names, err := stopPrivate(ctx, opt, rec)
	stopped = append(stopped, names...)
	errs = append(errs, err)
	if rec.Kind != "" {
		rec.Kind, rec.Why, rec.Temporary = "", nil, false
		errs = append(errs, saveRecord(opt.State, rec), state.RemoveServers(opt.State))
	}
	return stopped, errors.Join(errs...)
}

// stopAfterFailure stops what a failed or cancelled call had started. The
// caller's context may be over, so it has a patience of its own.
func stopAfterFailure(opt Options, started []string) error {
	if len(started) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rec, err := loadRecord(opt.State)
	if err != nil {
		return err
	}
	_, err = stopAll(ctx, opt, rec)
	return err
}
