package wire

import (
	"errors"
	"math/bits"
)

// bodyKind says how the end of a body is found: RFC 9112, section 6.3.
type bodyKind int

const (
	bodyNone bodyKind = iota
	bodyLength
	bodyChunked
	bodyToClose // it ends with the connection
)

// httpBody finds where a body ends, however its bytes arrive.
type httpBody struct {
	kind  bodyKind
	left  uint64 // bytes still to come: of the body, or of the chunk
	chunk chunkState
	lines int    // bytes of the chunk's framing, or of the trailer
	size  uint64 // of the body so far, without its framing
	start []byte // its first bytes, up to keep
	keep  int
}

// chunkState is what comes next in a chunked body.
type chunkState int

const (
	chunkSize chunkState = iota // a digit
	chunkMore                   // a further digit, or what ends them
	chunkExtension
	chunkLine // the line feed behind the size
	chunkData
	chunkDataEnd
	chunkDataLine
	chunkTrailer // the start of a line
	chunkTrailerLine
	chunkTrailerEnd
	chunkEnd // the last line feed
)

const (
	maxChunkLine = 4 << 10
	maxTrailer   = maxWhole
)

var errChunk = errors.New("HTTP chunk that is none")

// scan takes in what arrives. It returns how much of b belongs to the body, and
// whether that was all of it; if not, it is all of b.
func (h *httpBody) scan(b []byte) (n int, done bool, err error) {
	switch h.kind {
	case bodyLength:
		n = h.take(b)
		return n, h.left == 0, nil
	case bodyToClose:
		h.left = uint64(len(b))
		return h.take(b), false, nil
	case bodyChunked:
		return h.chunks(b)
	}
	return 0, true, nil
}

// take takes as much of b as is left.
func (h *httpBody) take(b []byte) int {
	n := int(min(h.left, uint64(len(b))))
	h.left -= uint64(n)
	h.size += uint64(n)
	if room := h.keep - len(h.start); room > 0 {
		h.start = append(h.start, b[:min(n, room)]...)
	}
	return n
}

func (h *httpBody) chunks(b []byte) (n int, done bool, err error) {
	for n < len(b) {
		if h.chunk == chunkData {
			if n += h.take(b[n:]); h.left == 0 {
				h.chunk = chunkDataEnd
			}
			continue
		}
		c := b[n]
		n++
		if h.chunk == chunkEnd {
			if c != '\n' {
				return n, false, errChunk
			}
			return n, true, nil
		}
		if h.chunk, err = h.frame(c); err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

// frame takes in a byte of the framing, and returns what comes next.
func (h *httpBody) frame(c byte) (chunkState, error) {
	h.lines++
	trailer := h.chunk >= chunkTrailer
	if !trailer && h.lines > maxChunkLine || h.lines > maxTrailer {
		return 0, errors.New("HTTP chunk with a line that is too long")
	}
	switch h.chunk {
	case chunkSize, chunkMore:
		if digit, ok := hexDigit(c); ok {
			if bits.Len64(h.left) > 56 {
				return 0, errChunk
			}
			h.left = h.left<<4 | digit
			return chunkMore, nil
		}
		switch {
		case h.chunk == chunkSize:
		case c == '\r':
			return chunkLine, nil
		case c == ';' || c == ' ' || c == '\t':
			return chunkExtension, nil
		}
	case chunkExtension:
		switch {
		case c == '\r':
			return chunkLine, nil
		case c != '\n':
			return chunkExtension, nil
		}
	case chunkLine:
		switch {
		case c != '\n':
		case h.left == 0:
			h.lines = 0
			return chunkTrailer, nil
		default:
			return chunkData, nil
		}
	case chunkDataEnd:
		if c == '\r' {
			return chunkDataLine, nil
		}
	case chunkDataLine:
		if c == '\n' {
			h.lines = 0
			return chunkSize, nil
		}
	case chunkTrailer:
		if c == '\r' {
			return chunkEnd, nil
		}
		if c != '\n' {
			return chunkTrailerLine, nil
		}
	case chunkTrailerLine:
		switch {
		case c == '\r':
			return chunkTrailerEnd, nil
		case c != '\n':
			return chunkTrailerLine, nil
		}
	case chunkTrailerEnd:
		if c == '\n' {
			return chunkTrailer, nil
		}
	}
	return 0, errChunk
}

func hexDigit(c byte) (uint64, bool) {
	switch {
	case c >= '0' && c <= '9':
		return uint64(c - '0'), true
	case c >= 'a' && c <= 'f':
		return uint64(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return uint64(c-'A') + 10, true
	}
	return 0, false
}
