package wire

import (
	"fmt"
	"net/http"
)

// httpAnswer is a response that the proxy gives in a service's place.
func httpAnswer(status int, text string, noBody, last bool) []byte {
	connection := ""
	if last {
		connection = "Connection: close\r\n"
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n%s\r\n",
		status, http.StatusText(status), len(text), connection)
	if noBody {
		text = ""
	}
	return []byte(head + text)
}

// fail takes a response away and says in its place that the service gave none.
// What the request has done is done.
func (c *httpCodec) fail(string) ([]byte, bool) {
	if c.dir == ToServer || !c.answers {
		return nil, false
	}
	c.drop = true
	return httpAnswer(http.StatusBadGateway, "the response was lost (by a fault)\n", c.request.noBody, false), true
}

// refuse answers a request in the service's place. It does not apply when other
// requests of the connection still wait, for the client would take the answer
// for theirs.
func (c *httpCodec) refuse() (answer []byte, m Message, ok bool) {
	if c.dir == ToClient || len(c.s.waiting) > 0 {
		return nil, Message{}, false
	}
	c.drop = true
	const status = http.StatusServiceUnavailable
	// A client that was not told to continue does not send its body.
	answer = httpAnswer(status, "the service is not available (by a fault)\n", c.request.noBody, c.head.expects)
	m = Message{Step: true, Type: "response", Name: fmt.Sprint(status, " ", c.request.name), Status: status, Service: c.s.service,
		Detail: "in the service's place", Size: int64(len(answer))}
	if c.request.effect == Call {
		m.Effect = Done
	}
	return answer, m, true
}

// refused is the error of a message that is not understood. The client is told
// why, if it does not wait for anything else.
func (c *httpCodec) refused(err error) error {
	if c.dir == ToClient || len(c.s.waiting) > 0 {
		return err
	}
	return declined{err, httpAnswer(http.StatusBadRequest, "the proxy does not understand this request: "+err.Error()+"\n", false, true)}
}
