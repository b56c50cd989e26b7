package http1

import (
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

const (
	// maxChunkLine bounds one line of a chunk's size and extensions.
	maxChunkLine = 256
	// maxExtensions is how many bytes of chunk extensions a body may have beyond
	// the bytes of its data: they are read for nothing.
	maxExtensions = 4096
	// maxChunk is above any real size, and far from overflowing.
	maxChunk = 1 << 60
)

// chunks reads the framing of a chunked body (RFC 9112 7.1). The zero value is at
// its beginning.
type chunks struct {
	// left is how much of the current chunk's data is still to come.
	left  int64
	state chunkState
	// extensions less data are bounded.
	extensions, data int64
}

type chunkState uint8

const (
	// chunkSize: a line with a size comes.
	chunkSize chunkState = iota
	// chunkEnd: the CRLF after data comes.
	chunkEnd
	// chunkTrailers: all data was there; field lines come.
	chunkTrailers
)

// advance reads framing from b until data comes (left is above 0), the trailers
// come, or b has too little. It returns how much it took.
func (c *chunks) advance(b []byte) (n int, err *message.Error) {
	for c.left == 0 && c.state != chunkTrailers {
		if c.state == chunkEnd {
			if len(b)-n < 2 {
				if len(b) > n && b[n] != '\r' {
					return n, errChunkEnd
				}
				return n, nil
			}
			if b[n] != '\r' || b[n+1] != '\n' {
				return n, errChunkEnd
			}
			n += 2
			c.state = chunkSize
		}
		size, taken, extension, err := parseChunkLine(b[n:])
		if err != nil || taken == 0 {
			return n, err
		}
		n += taken
		c.extensions += int64(extension)
		if c.extensions > c.data+maxExtensions {
			return n, errChunkExtensions
		}
		c.left = size
		c.data += size
		c.state = chunkEnd
		if size == 0 {
			c.state = chunkTrailers
		}
	}
	return n, nil
}

// parseChunkLine reads the line before a chunk's data. taken is 0 if it has not
// arrived whole; extension is how many of the bytes taken are extensions.
func parseChunkLine(b []byte) (size int64, taken, extension int, err *message.Error) {
	i := 0
	for i < len(b) && hexDigits[b[i]] != 0 {
		if i == 16 || size > maxChunk>>4 {
			return 0, 0, 0, errChunkSize
		}
		size = size<<4 | int64(hexDigits[b[i]]-1)
		i++
	}
	if i == len(b) {
		return 0, 0, 0, nil
	}
	if i == 0 {
		return 0, 0, 0, errChunkSize
	}
	digits := i
	if b[i] != '\r' {
		for i < len(b) && isBlank(b[i]) && i < maxChunkLine {
			i++
		}
		if i < len(b) && b[i] != ';' {
			if b[i] == '\n' {
				return 0, 0, 0, errBareLF
			}
			return 0, 0, 0, errChunkSize
		}
		for {
			i = nextControl(b, i)
			if i > maxChunkLine {
				return 0, 0, 0, errChunkExtension
			}
			if i == len(b) {
				return 0, 0, 0, nil
			}
			if b[i] != '\t' {
				break
			}
			i++
		}
		switch b[i] {
		case '\r':
		case '\n':
			return 0, 0, 0, errBareLF
		default:
			return 0, 0, 0, errChunkExtension
		}
	}
	if i+1 == len(b) {
		return 0, 0, 0, nil
	}
	if b[i+1] != '\n' {
		return 0, 0, 0, errBareCR
	}
	return size, i + 2, i - digits, nil
}

// parseTrailers reads the trailer section from the beginning of b, and returns how
// long it is: 0 if it has not arrived whole. What must not be in trailers (RFC 9110
// 6.5.1) is left out, and what would change the framing is refused.
func parseTrailers(b []byte, h *head, dst []message.Field, limit int) (int, []message.Field, *message.Error) {
	n, dst, err := h.parse(b, 0, dst, limit)
	if err != nil || n == 0 {
		return 0, dst, err
	}
	if h.hosts > 0 || h.chunked || h.length >= 0 {
		return 0, dst, errTrailer
	}
	kept := dst[:0]
	for _, f := range dst {
		if !headOnly(f.ID) {
			kept = append(kept, f)
		}
	}
	return n, kept, nil
}

// headOnly tells whether a field means something in a head only.
func headOnly(id message.FieldID) bool {
	switch id {
	case message.Authorization, message.Connection, message.ContentEncoding, message.ContentLength,
		message.ContentType, message.Cookie, message.Expect, message.Forwarded, message.Host,
		message.KeepAlive, message.ProxyConnection, message.SetCookie, message.TE, message.Trailer,
		message.TransferEncoding, message.Upgrade, message.XForwardedFor, message.XForwardedHost,
		message.XForwardedProto:
		return true
	}
	return false
}
