//go:build unix

package wire

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// readNow reads what has arrived already, and never waits. It returns 0 when
// there is nothing.
func readNow(conn net.Conn, b []byte) (n int, err error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	// A deadline in the past, which ended the read before, would end this too.
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	rerr := raw.Read(func(fd uintptr) bool {
		for {
			n, err = syscall.Read(int(fd), b)
			if !errors.Is(err, syscall.EINTR) {
				return true
			}
		}
	})
	if rerr != nil {
		return 0, rerr
	}
	return max(n, 0), err
}
