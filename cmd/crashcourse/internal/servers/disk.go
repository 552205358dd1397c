package servers

import (
	"errors"
	"fmt"
	"syscall"
)

// minDisk is the free space below which no server is started: both stop work
// in ways that are hard to understand once the disk is full.
const minDisk = 500 << 20

// FreeDisk returns the bytes that an unprivileged user may still write in dir.
func FreeDisk(dir string) (uint64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("servers: free space of %s: %w", dir, err)
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

func checkDisk(dir string) error {
	free, err := FreeDisk(dir)
	if err != nil {
		return err
	}
	if free < minDisk {
		return fmt.Errorf("servers: the disk of %s is full or nearly so (%d MB free, %d MB needed): free some space, or set CRASHCOURSE_STATE to a folder on another disk", dir, free>>20, minDisk>>20)
	}
	return nil
}

// diskFull says it plainly when err is a full disk.
func diskFull(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("servers: the disk of %s is full: free some space, or set CRASHCOURSE_STATE to a folder on another disk (%w)", dir, err)
	}
	return err
}
