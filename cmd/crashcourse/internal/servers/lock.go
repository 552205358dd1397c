package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lock is a held flock. The kernel lets go of it when the process dies,
// however it dies, so a killed run leaves no lock behind.
type lock struct{ file *os.File }

// lockFile takes the lock at path, exclusively or shared, and waits for it as
// long as ctx allows. waiting, if not nil, is called once before it waits.
func lockFile(ctx context.Context, path string, exclusive bool, waiting func()) (*lock, error) {
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("servers: %w", err)
	}
	// flock cannot be given up half way, so it is tried again and again.
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return &lock{f}, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("servers: lock %s: %w", path, err), f.Close())
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tryLock takes the lock at path exclusively, or returns nil when it is held.
func tryLock(path string) (*lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("servers: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written to it
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, fmt.Errorf("servers: lock %s: %w", path, err)
	}
	return &lock{f}, nil
}

// release lets go of the lock. Closing the file does that.
func (l *lock) release() { _ = l.file.Close() }
