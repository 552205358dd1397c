package crash

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
)

// What stands for the process's own address in the arguments and environment of
// a [Program].
const (
	addrPlace = "{{addr}}"
	portPlace = "{{port}}"
)

// Ports are drawn from below the range that systems hand out to outgoing
// connections: a sweep makes many of those, and a process that starts again has
// to find its port free.
const portsFrom, portsTo = 20000, 32000

// freeAddr returns a loopback address that nobody listens on and that is not
// taken.
func freeAddr(taken func(addr string) bool) (string, error) {
	for range 200 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(portsFrom+rand.IntN(portsTo-portsFrom)))
		if taken(addr) {
			continue
		}
		if l, err := net.Listen("tcp4", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("crash: no free TCP port on 127.0.0.1: end some programs that listen, or look at `ss -ltn`")
}

// at returns the program with addr in the place of its placeholders.
func (p Program) at(addr string) Program {
	_, port, _ := net.SplitHostPort(addr)
	fill := strings.NewReplacer(addrPlace, addr, portPlace, port)
	each := func(in []string) []string {
		out := make([]string, len(in))
		for i, s := range in {
			out[i] = fill.Replace(s)
		}
		return out
	}
	p.Args, p.Env = each(p.Args), each(p.Env)
	return p
}
