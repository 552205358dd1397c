package wire

import (
	"bytes"
	"testing"
)

// TestHTTPVectors speaks as RFC 9110 and RFC 9112 do, byte for byte.
func TestHTTPVectors(t *testing.T) {
	speak(t, []vector{
		{"RFC 9112, 2.1: a request without a body", []line{
			up("GET /hello.txt HTTP/1.1\r\nUser-Agent: curl/7.64.1\r\nHost: www.example.com\r\nAccept-Language: en, mi\r\n\r\n", "*GET /hello.txt"),
			down("HTTP/1.1 200 OK\r\nContent-Length: 51\r\nVary: Accept-Encoding\r\nContent-Type: text/plain\r\n\r\nHello World! My content includes a trailing CRLF.\r\n", "*200 GET /hello.txt"),
		}},
		{"RFC 9112, 3.2: the forms of a target", []line{
			up("GET /where?q=now HTTP/1.1\r\nHost: www.example.org\r\n\r\n", "*GET /where"),
			up("GET http://www.example.org/pub/WWW/TheProject.html HTTP/1.1\r\nHost: www.example.org\r\n\r\n", "*GET /pub/WWW/TheProject.html"),
			up("OPTIONS * HTTP/1.1\r\nHost: www.example.org\r\n\r\n", "*OPTIONS *"),
			up("GET http://u:p@example.org?x HTTP/1.0\r\n\r\n", "*GET /"),
		}},
		{"RFC 9112, 7.1: chunks, with an extension and a trailer", []line{
			up("PUT /f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4;a=\"b\"\r\nWiki\r\nB \r\npedia in \r\n\r\n0\r\nExpires: never\r\n\r\n", "*PUT /f"),
			down("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n00\r\n\r\n", "*200 PUT /f"),
		}},
		{"RFC 9110, 9.3.2 and 15.4.5: responses without a body", []line{
			up("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\nDELETE /c HTTP/1.1\r\nHost: x\r\n\r\n", "*HEAD /a, *GET /b, *DELETE /c"),
			down("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "*200 HEAD /a, *304 GET /b, *204 DELETE /c"),
		}},
		{"RFC 9110, 15.2: interim responses", []line{
			up("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "*GET /a"),
			down("HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\nHTTP/1.1 102\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "103 GET /a, 102 GET /a, *200 GET /a"),
		}},
		{"RFC 9112, 6.3: a body that ends with the connection", []line{
			up("GET /a HTTP/1.0\r\n\r\n", "*GET /a"),
			down("HTTP/1.0 200 OK\r\n\r\nall of it, HTTP/1.1 404 Not Found\r\n\r\n included", "*200 GET /a"),
		}},
		{"RFC 9110, 10.1.1: a request that expects to be told to continue", []line{
			up("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", "*POST /a"),
			down("HTTP/1.1 100 Continue\r\n\r\n", "100 POST /a"),
			up("abc", ""),
			up("GET /b HTTP/1.1\r\nHost: x\r\n\r\n", "*GET /b"),
			down("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", "*201 POST /a"),
		}},
		{"RFC 9110, 15.5.9: a response that nobody asked for", []line{
			down("HTTP/1.1 408 Request Timeout\r\nContent-Length: 2\r\n\r\nno", "408"),
		}},
	}, func() map[Direction]codec {
		s := &httpSession{service: "x"}
		return map[Direction]codec{ToServer: newHTTPCodec(s, ToServer, 100), ToClient: newHTTPCodec(s, ToClient, 100)}
	}, bytes.Equal)
}

// TestLongHTTP checks that what does not fit a buffer comes out unchanged.
func TestLongHTTP(t *testing.T) {
	big := string(bytes.Repeat([]byte("0123456789"), 100_000))
	for _, chunk := range []int{1000, 16384, 300_000, 1 << 30} {
		for _, in := range []string{
			"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + big,
			"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nF4240\r\n" + big + "\r\n0\r\n\r\n",
		} {
			in += "GET /b HTTP/1.1\r\nHost: x\r\n\r\n"
			s := &httpSession{}
			out, _, messages, err := feed(t, newHTTPCodec(s, ToServer, 100), []byte(in), chunk)
			if err != nil || string(out) != in || len(messages) != 2 || messages[0].Size != maxWhole {
				t.Errorf("in reads of %d: %d of %d bytes, %d messages, %v", chunk, len(out), len(in), len(messages), err)
			}
			if len(s.waiting) != 2 || s.upOpen {
				t.Errorf("in reads of %d: %d requests wait", chunk, len(s.waiting))
			}
		}
	}
}
