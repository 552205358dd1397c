package wire

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// declined is the error of a client that cannot be served.
type declined struct {
	error
	answer []byte // what its own protocol has to say about it
}

// tlsAlert is a fatal handshake_failure, RFC 8446, section 6.2.
var tlsAlert = []byte{21, 3, 3, 0, 2, 2, 40}

// amqpHeader asks for AMQP 0-9-1. A broker answers with it when it is asked for
// what it does not speak.
var amqpHeader = []byte("AMQP\x00\x00\x09\x01")

// beginsTLS tells whether in is the start of a TLS handshake.
func beginsTLS(in []byte) bool { return len(in) > 1 && in[0] == 22 && in[1] == 3 }

// checkAMQPHeader reads the first eight bytes of an AMQP client. AMQP 1.0, which
// brokers speak on the same port, has other frames.
func checkAMQPHeader(in []byte) error {
	switch {
	case beginsTLS(in):
		return declined{errors.New("the client speaks TLS: use an amqp:// address, without TLS"), tlsAlert}
	case string(in[:4]) != "AMQP":
		return declined{fmt.Errorf("the client does not speak AMQP 0-9-1: it begins with %q", in[:8]), amqpHeader}
	case in[5] == 1 && in[6] == 0 && in[7] == 0:
		return declined{errors.New("the client speaks AMQP 1.0: only AMQP 0-9-1 is understood"), amqpHeader}
	}
	return nil
}

// http2Preface is what a client that knows of HTTP/2 begins with: RFC 9113,
// section 3.4.
const http2Preface = "PRI * HTTP/2.0"

// checkHTTP reads the first bytes of a client of a service. It tells whether
// they are enough to know that it speaks HTTP/1.
func checkHTTP(in []byte) (enough bool, err error) {
	switch {
	case beginsTLS(in):
		return true, declined{errors.New("the client speaks TLS: use an http:// address"), tlsAlert}
	case strings.HasPrefix(string(in), http2Preface):
		return true, declined{errors.New("the client speaks HTTP/2 without asking: only HTTP/1.1 is understood"),
			httpAnswer(http.StatusHTTPVersionNotSupported, "only HTTP/1.1 is understood\n", false, true)}
	}
	undecided := len(in) < 2 && (len(in) == 0 || in[0] == 22) || strings.HasPrefix(http2Preface, string(in))
	return !undecided, nil
}

// decline tells the client why. It closes only when that has been taken, for a
// close before all has been read destroys what is on its way.
func (c *conn) decline(err error) {
	var d declined
	if !errors.As(err, &d) {
		return
	}
	_ = c.client.SetDeadline(time.Now().Add(partingTime))
	if _, err := c.client.Write(d.answer); err == nil {
		closeWrite(c.client)
		_, _ = io.Copy(io.Discard, c.client)
	}
}
