package wire

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// httpHead is what matters of the head of a request or a response.
type httpHead struct {
	method, path string // of a request
	status       int    // of a response
	length       int64  // Content-Length; -1: there is none
	coded        bool   // Transfer-Encoding is there
	chunked      bool   // and ends with chunked
	expects      bool   // Expect: 100-continue
	endless      bool   // a stream of events
	packed       bool   // Content-Encoding is there: the body is no text
	shown        []string
}

// httpShown are the headers that go into Message.Detail. Others do not: they
// may be secrets.
var httpShown = map[string]bool{"idempotency-key": true, "idempotent-replayed": true, "retry-after": true}

// maxPath is the longest path that is put into a name, in bytes.
const maxPath = 120

// safe tells whether the method of a request only reads, by RFC 9110, section
// 9.2.1.
func (h *httpHead) safe() bool {
	switch h.method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

func (h *httpHead) name() string { return h.method + " " + clip(h.path, maxPath) }

// httpHeadEnd returns where the head at the start of in ends, after its empty
// line; 0 when not all of it has arrived. line is where the line begins that was
// not complete the last time, and then this time.
func httpHeadEnd(in []byte, line int) (end, next int, err error) {
	if !isTokenByte(in[0]) {
		return 0, 0, fmt.Errorf("HTTP message begins with %q", in[:1])
	}
	for {
		n := bytes.IndexByte(in[line:], '\n')
		switch {
		case n < 0 && len(in) >= maxWhole:
			return 0, 0, fmt.Errorf("HTTP head of more than %d bytes", maxWhole)
		case n < 0:
			return 0, line, nil
		case n == 0 || in[line+n-1] != '\r':
			return 0, 0, errors.New("HTTP line ends without a carriage return")
		case n == 1:
			return line + 2, 0, nil
		}
		line += n + 1
	}
}

// parseHTTPHead reads a head that is complete.
func parseHTTPHead(head []byte, dir Direction) (httpHead, error) {
	lines := strings.Split(string(head), "\r\n")
	lines = lines[:len(lines)-2] // behind the last lines' ends is nothing
	h := httpHead{length: -1}
	var err error
	if dir == ToServer {
		err = h.requestLine(lines[0])
	} else {
		err = h.statusLine(lines[0])
	}
	if err != nil {
		return h, err
	}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) || hasControl(value) {
			return h, errors.New("HTTP header that is none")
		}
		if err := h.header(strings.ToLower(name), strings.Trim(value, " \t")); err != nil {
			return h, err
		}
	}
	switch {
	case h.coded && h.length >= 0:
		return h, errors.New("HTTP head with both Content-Length and Transfer-Encoding")
	case h.coded && !h.chunked && dir == ToServer:
		return h, errors.New("HTTP request whose Transfer-Encoding does not end with chunked")
	}
	return h, nil
}

func (h *httpHead) requestLine(line string) error {
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" || hasControl(parts[1]) {
		return errors.New("HTTP request line that is none")
	}
	if err := checkHTTPVersion(parts[2]); err != nil {
		return err
	}
	h.method, h.path = clip(parts[0], 20), parts[1]
	if h.method == http.MethodConnect {
		return errors.New("HTTP CONNECT: only requests to the service itself are understood")
	}
	if _, rest, absolute := strings.Cut(h.path, "://"); absolute && h.path[0] != '/' {
		_, path, _ := strings.Cut(rest, "/")
		h.path = "/" + path
	}
	if i := strings.IndexAny(h.path, "?#"); i >= 0 {
		h.path = h.path[:i]
	}
	return nil
}

func (h *httpHead) statusLine(line string) error {
	version, rest, _ := strings.Cut(line, " ")
	if err := checkHTTPVersion(version); err != nil {
		return err
	}
	code, reason, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || n < 100 || hasControl(reason) {
		return errors.New("HTTP status line that is none")
	}
	if n == http.StatusSwitchingProtocols {
		return errors.New("the service changes the protocol (101): only HTTP/1.1 is understood")
	}
	h.status = n
	return nil
}

func checkHTTPVersion(v string) error {
	if v != "HTTP/1.1" && v != "HTTP/1.0" {
		return errors.New("neither HTTP/1.1 nor HTTP/1.0")
	}
	return nil
}

func (h *httpHead) header(name, value string) error {
	switch name {
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 62)
		if err != nil || h.length >= 0 || strings.HasPrefix(value, "+") {
			return errors.New("HTTP Content-Length that is none, or a second one")
		}
		h.length = int64(n)
	case "transfer-encoding":
		h.coded = true
		last := value[strings.LastIndexByte(value, ',')+1:]
		h.chunked = strings.EqualFold(strings.Trim(last, " \t"), "chunked")
	case "content-encoding":
		h.packed = true
	case "content-type":
		h.endless = strings.HasPrefix(strings.ToLower(value), "text/event-stream")
	case "expect":
		h.expects = strings.EqualFold(value, "100-continue")
	}
	if httpShown[name] && value != "" {
		h.shown = append(h.shown, http.CanonicalHeaderKey(name)+": "+value)
	}
	return nil
}

// body returns what tells where the message's body ends. request is what a
// response answers; of a response that nobody asked for it is empty.
func (h *httpHead) body(request httpRequest, keep int) httpBody {
	b := httpBody{keep: keep}
	none := h.status > 0 && (request.noBody || h.status < 200 || h.status == http.StatusNoContent || h.status == http.StatusNotModified)
	switch {
	case none:
	case h.chunked:
		b.kind = bodyChunked
	case h.length >= 0:
		b.kind, b.left = bodyLength, uint64(h.length)
	case h.status > 0:
		b.kind = bodyToClose
	}
	return b
}

// isToken tells whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return true
		}
	}
	return false
}
