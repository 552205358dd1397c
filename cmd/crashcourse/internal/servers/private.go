package servers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"crashcourse/pkg/state"
)

// privateFolder returns where the private server called name lives.
func privateFolder(stateDir string, rec record, name string) string {
	if rec.Runtime != "" {
		return filepath.Join(rec.Runtime, name)
	}
	return filepath.Join(stateDir, name)
}

// startPrivate starts what does not run yet of the two private servers, both
// at the same time. When it fails, it stops what it started.
func startPrivate(ctx context.Context, opt Options, rec *record) (s state.Servers, started []string, err error) {
	if err := installMissing(ctx, opt); err != nil {
		return s, nil, err
	}
	pg, err := newPostgres(ctx, opt)
	if err != nil {
		return s, nil, err
	}
	mq, err := newRabbit(ctx, opt)
	if err != nil {
		return s, nil, err
	}
	if err := chooseRuntime(opt, rec, pg.account, mq.account); err != nil {
		return s, nil, err
	}
	pg.place(privateFolder(opt.State, *rec, "postgres"))
	mq.place(privateFolder(opt.State, *rec, "rabbitmq"))
	if err := checkDisk(filepath.Dir(pg.dir)); err != nil {
		return s, nil, err
	}
	// Recorded before anything runs, so that `down` finds it whatever happens.
	rec.Kind = KindPrivate
	if err := saveRecord(opt.State, *rec); err != nil {
		return s, nil, err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var pgStarted, mqStarted bool
	wg.Go(func() {
		var err error
		if pgStarted, err = pg.start(ctx, opt); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() {
		var err error
		if mqStarted, err = mq.start(ctx, opt); err != nil {
			cancel(err)
		}
	})
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		patience, done := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer done()
		if pgStarted {
			err = errors.Join(err, pg.stopDaemon(patience))
		}
		if mqStarted {
			err = errors.Join(err, mq.stopDaemon(patience))
		}
		return s, nil, diskFull(filepath.Dir(pg.dir), err)
	}
	if pgStarted {
		started = append(started, "PostgreSQL")
	}
	if mqStarted {
		started = append(started, "RabbitMQ")
	}
	return state.Servers{Postgres: pg.url(), AMQP: mq.url(), Management: mq.managementURL(), Kind: KindPrivate}, started, nil
}

// stopPrivate stops the private servers of the state folder, if any run.
func stopPrivate(ctx context.Context, opt Options, rec record) ([]string, error) {
	var stopped []string
	var errs []error
	var mu sync.Mutex
	var wg sync.WaitGroup
	stop := func(name string, daemons ...*daemon) {
		for _, d := range daemons {
			did, err := d.stop(ctx, d.signal(), stopPatience/2)
			mu.Lock()
			if did && !slices.Contains(stopped, name) {
				stopped = append(stopped, name)
			}
			errs = append(errs, err)
			mu.Unlock()
		}
	}
	pg := postgres{}
	pg.place(privateFolder(opt.State, rec, "postgres"))
	pg.adopt()
	mq := rabbit{}
	mq.place(privateFolder(opt.State, rec, "rabbitmq"))
	wg.Go(func() { stop("PostgreSQL", &pg.daemon) })
	wg.Go(func() { stop("RabbitMQ", &mq.daemon, &mq.epmd) })
	wg.Wait()
	slices.Sort(stopped)
	return stopped, errors.Join(errs...)
}

// signal is how the daemon is asked to end in good order.
func (d *daemon) signal() syscall.Signal {
	if d.name == "PostgreSQL" {
		return syscall.SIGINT // fast: do not wait for sessions to end
	}
	return syscall.SIGTERM
}

// chooseRuntime decides where the private servers live. That is the state
// folder, unless they run as users who may not pass through to it.
func chooseRuntime(opt Options, rec *record, accounts ...*account) error {
	if rec.Runtime != "" {
		return makeRuntime(rec.Runtime)
	}
	for _, a := range accounts {
		if a.canEnter(opt.State) {
			continue
		}
		sum := sha256.Sum256([]byte(opt.State))
		rec.Runtime = filepath.Join("/var/tmp", "crashcourse-"+hex.EncodeToString(sum[:6]))
		opt.Log.Say("servers", "user %s may not enter %s, so the servers' data goes to %s", a.name, opt.State, rec.Runtime)
		return makeRuntime(rec.Runtime)
	}
	return nil
}

// makeRuntime makes a folder in a place where everybody may write, and makes
// sure that it is ours and no trap.
func makeRuntime(dir string) error {
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("servers: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("servers: %s exists and is not ours: remove it, or set CRASHCOURSE_STATE to a folder that every user may enter", dir)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	return nil
}
