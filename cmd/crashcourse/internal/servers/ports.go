package servers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"
)

// Ports are drawn from below the range that systems hand out to outgoing
// connections, so that a server finds its port free again the next time.
const portsFrom, portsTo = 20000, 32000

// FreePort returns a loopback TCP port that is free now: prefer, if it is not
// zero and free, or one drawn at random. Somebody else may take it before the
// caller does.
func FreePort(prefer int) (int, error) {
	if prefer != 0 && portFree(prefer) {
		return prefer, nil
	}
	for range 200 {
		if p := portsFrom + rand.IntN(portsTo-portsFrom); portFree(p) {
			return p, nil
		}
	}
	return 0, errors.New("servers: no free TCP port on 127.0.0.1: end some programs that listen, or look at `ss -ltn`")
}

func portFree(port int) bool {
	l, err := net.Listen("tcp4", loopback(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts fills the ports of want that are zero or taken. Those of a server
// that has just been killed are given a second to become free.
func freePorts(want ...*int) error {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if !slices.ContainsFunc(want, func(p *int) bool { return *p != 0 && !portFree(*p) }) {
			break
		}
	}
	seen := map[int]bool{}
	for _, p := range want {
		for {
			port, err := FreePort(*p)
			if err != nil {
				return fmt.Errorf("servers: %w", err)
			}
			if !seen[port] {
				seen[port] = true
				*p = port
				break
			}
			*p = 0
		}
	}
	return nil
}
