package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Codes that stand where a start-up packet has its protocol version.
const (
	pgSSLRequest    = 80877103
	pgGSSENCRequest = 80877104
	pgCancelRequest = 80877102
	// maxStartup is the longest start-up packet that PostgreSQL accepts.
	maxStartup = 10000
)

// pgUpTypes and pgDownTypes are the protocol's names of its message types.
var (
	pgUpTypes = map[byte]string{
		'B': "Bind", 'C': "Close", 'd': "CopyData", 'c': "CopyDone", 'f': "CopyFail", 'D': "Describe",
		'E': "Execute", 'H': "Flush", 'F': "FunctionCall", 'p': "PasswordMessage", 'P': "Parse",
		'Q': "Query", 'S': "Sync", 'X': "Terminate",
	}
	pgDownTypes = map[byte]string{
		'R': "Authentication", 'K': "BackendKeyData", '2': "BindComplete", '3': "CloseComplete",
		'C': "CommandComplete", 'd': "CopyData", 'c': "CopyDone", 'G': "CopyInResponse",
		'H': "CopyOutResponse", 'W': "CopyBothResponse", 'D': "DataRow", 'I': "EmptyQueryResponse",
		'E': "ErrorResponse", 'V': "FunctionCallResponse", 'v': "NegotiateProtocolVersion",
		'n': "NoData", 'N': "NoticeResponse", 'A': "NotificationResponse", 't': "ParameterDescription",
		'S': "ParameterStatus", '1': "ParseComplete", 's': "PortalSuspended", 'Z': "ReadyForQuery",
		'T': "RowDescription",
	}
)

// pgFrame is the head of one message: all of it when it is small.
type pgFrame struct {
	kind  byte
	body  []byte // as much of it as has to be there
	n     int    // bytes of the input
	total int64  // bytes on the wire
}

// framePG frames what in starts with; n is 0 when more has to be read first.
func framePG(in []byte) (pgFrame, error) {
	if len(in) < 5 {
		return pgFrame{}, nil
	}
	size := binary.BigEndian.Uint32(in[1:])
	if size < 4 || size > 1<<31-1 {
		return pgFrame{}, fmt.Errorf("PostgreSQL message %q says it is %d bytes long", in[0], int32(size))
	}
	f := pgFrame{kind: in[0], total: int64(size) + 1}
	need := int(min(f.total, maxWhole))
	if len(in) < need {
		return pgFrame{}, nil
	}
	f.n, f.body = need, in[5:need]
	return f, nil
}

// framePGRun frames as many whole messages of one type as stand at the start
// of in, up to max bytes.
func framePGRun(in []byte, kind byte) (n, count int) {
	for len(in)-n >= 5 && in[n] == kind {
		size := binary.BigEndian.Uint32(in[n+1:])
		if size < 4 || int64(size)+1 > int64(len(in)-n) {
			break
		}
		n += int(size) + 1
		count++
	}
	return n, count
}

// framePGStartup frames a packet without a type byte.
func framePGStartup(in []byte) (n int, code uint32, err error) {
	if len(in) < 8 {
		return 0, 0, nil
	}
	size := binary.BigEndian.Uint32(in)
	code = binary.BigEndian.Uint32(in[4:])
	if size < 8 || size > maxStartup {
		if beginsTLS(in) {
			return 0, 0, declined{errors.New("the client speaks TLS at once (sslnegotiation=direct): connect with sslmode=disable"), tlsAlert}
		}
		return 0, 0, fmt.Errorf("PostgreSQL start-up packet says it is %d bytes long", size)
	}
	if len(in) < int(size) {
		return 0, 0, nil
	}
	return int(size), code, nil
}

// cstring splits b at its first NUL byte.
func cstring(b []byte) (s, rest []byte) {
	s, rest, _ = bytes.Cut(b, []byte{0})
	return s, rest
}

// pgMessage builds a message.
func pgMessage(kind byte, body ...byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
	return append(b, body...)
}

// pgFields reads an ErrorResponse, a NoticeResponse or the like.
func pgFields(body []byte) map[byte]string {
	fields := make(map[byte]string)
	for len(body) > 1 && body[0] != 0 {
		var value []byte
		kind := body[0]
		value, body = cstring(body[1:])
		fields[kind] = string(value)
	}
	return fields
}

// pgError builds an ErrorResponse.
func pgError(severity, code, message string) []byte {
	var b []byte
	for _, f := range []struct {
		kind  byte
		value string
	}{{'S', severity}, {'V', severity}, {'C', code}, {'M', message}} {
		b = append(append(append(b, f.kind), f.value...), 0)
	}
	return pgMessage('E', append(b, 0)...)
}
