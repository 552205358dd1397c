//go:build !unix

package wire

import (
	"net"
	"time"
)

// readNow reads what has arrived already, giving it a moment where the system
// has no read that does not wait.
func readNow(conn net.Conn, b []byte) (int, error) {
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		return 0, err
	}
	return conn.Read(b)
}
