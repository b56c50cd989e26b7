package http1

import (
	"bytes"
	"io"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// framing says how the end of a body is known.
type framing uint8

const (
	noBody framing = iota
	// byLength: after a number of bytes.
	byLength
	// byChunks: after the last chunk and the trailers.
	byChunks
	// byClose: when the connection ends.
	byClose
	// undecided: the head is not sent yet, and what is written first decides.
	undecided
)

// direct is how much must be asked for to read it past the buffer.
const direct = 4 << 10

// incoming is what comes from a connection: heads, and a body.
type incoming struct {
	w *wire
	// buf[from:to] has come and was not read. buf[:base] holds the current head.
	buf            []byte
	from, to, base int
	// kept is the buffer of the current head, if the body has another one.
	kept []byte
	// maxHead and maxFields bound trailers too.
	maxHead, maxFields int

	body framing
	// left is what remains of a body byLength.
	left     int64
	chunks   chunks
	done     bool
	trailers []message.Field
	// section is what the trailers say; nothing of it is heeded. seen is how much of
	// them was there when they were last looked at.
	section head
	seen    int
	err     error
}

// begin prepares for the body of a head that ends at buf[from].
func (m *incoming) begin(body framing, length int64) {
	m.base = m.from
	m.body, m.left = body, length
	m.chunks = chunks{}
	m.done = body == noBody || body == byLength && length == 0
	m.trailers = m.trailers[:0]
	m.seen = 0
	m.err = nil
}

// end forgets the current head. What has come after the body stays.
func (m *incoming) end() {
	if m.kept != nil {
		putBuffer(m.kept)
		m.kept = nil
	}
	m.base = 0
}

// drop gives the buffers back.
func (m *incoming) drop() {
	m.end()
	if m.buf != nil {
		putBuffer(m.buf)
		m.buf = nil
	}
	m.from, m.to = 0, 0
}

// fill reads more into the buffer.
func (m *incoming) fill() error {
	m.makeRoom()
	n, err := m.w.receive(m.buf[m.to:])
	m.to += n
	return err
}

// makeRoom sees to it that something can be read into the buffer.
func (m *incoming) makeRoom() {
	if m.from == m.to {
		m.from, m.to = m.base, m.base
	}
	const enough = small / 4
	if len(m.buf)-m.to >= enough {
		return
	}
	unread := m.buf[m.from:m.to]
	if m.base+len(unread)+enough <= len(m.buf) {
		m.to = m.base + copy(m.buf[m.base:], unread)
		m.from = m.base
		return
	}
	// A head in the making never needs much more than it may have.
	b := getBuffer(max(medium, len(unread)+enough, min(2*len(unread), m.maxHead+enough)))
	m.to = copy(b, unread)
	m.from = 0
	switch {
	case m.base > 0 && m.kept == nil:
		m.kept = m.buf
	default:
		if m.buf != nil {
			putBuffer(m.buf)
		}
	}
	m.buf, m.base = b, 0
}

// read reads of the body, and io.EOF after it.
func (m *incoming) read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	n, err := m.readBody(p)
	if err != nil && err != errWoken {
		m.err = err
	}
	return n, err
}

func (m *incoming) readBody(p []byte) (int, error) {
	if m.done {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	switch m.body {
	case byLength:
		n, err := m.take(p, m.left, true)
		m.left -= int64(n)
		m.done = m.left == 0
		return n, err
	case byClose:
		n, err := m.take(p, int64(len(p)), true)
		if err == errTruncated {
			m.done = true
			return 0, io.EOF
		}
		return n, err
	}
	if err := m.advance(); err != nil {
		return 0, err
	}
	if m.done {
		return 0, io.EOF
	}
	n, err := m.take(p, m.chunks.left, m.chunks.left >= direct)
	m.chunks.left -= int64(n)
	return n, err
}

// take reads up to limit bytes: of the buffer, or if that is empty of the
// connection, past the buffer if it may and that pays.
func (m *incoming) take(p []byte, limit int64, past bool) (int, error) {
	if int64(len(p)) > limit {
		p = p[:limit]
	}
	if m.from == m.to {
		var n int
		var err error
		if past && len(p) >= direct {
			n, err = m.w.receive(p)
		} else {
			err = m.fill()
		}
		if n > 0 || err != nil {
			return n, truncated(err)
		}
	}
	n := copy(p, m.buf[m.from:m.to])
	m.from += n
	return n, nil
}

// truncated is the error for the end of a connection in the middle of a message.
func truncated(err error) error {
	if err == io.EOF {
		return errTruncated
	}
	return err
}

// advance reads a chunked body on to data or to its end.
func (m *incoming) advance() error {
	for {
		n, bad := m.chunks.advance(m.buf[m.from:m.to])
		m.from += n
		if bad != nil {
			return bad
		}
		if m.chunks.left > 0 {
			return nil
		}
		if m.chunks.state == chunkTrailers {
			if err := m.readTrailers(); err != nil || m.done {
				return err
			}
		}
		if err := m.fill(); err != nil {
			return truncated(err)
		}
	}
}

// readTrailers ends the body if the trailer section is there.
func (m *incoming) readTrailers() error {
	b := m.buf[m.from:m.to]
	if len(b) < m.maxHead && bytes.IndexByte(b[m.seen:], '\n') < 0 {
		return nil // parsing again pays only if a line has ended since
	}
	m.seen = len(b)
	m.section.reset()
	n, fields, bad := parseTrailers(b, &m.section, m.trailers[:0], m.maxFields)
	if bad != nil {
		return bad
	}
	if n == 0 {
		if len(b) >= m.maxHead {
			return errHeadSize
		}
		return nil
	}
	m.trailers = fields
	m.from += n
	m.done = true
	return nil
}

// lastChunk is the end of a chunked body without trailers, after data.
const lastChunk = "\r\n0\r\n\r\n"

// buffered returns what of the body is in the buffer without a gap, and whether
// that is the rest. It reads nothing.
func (m *incoming) buffered() (p []byte, all bool) {
	if m.done || m.err != nil {
		return nil, m.done
	}
	b := m.buf[m.from:m.to]
	switch m.body {
	case byLength:
		if int64(len(b)) >= m.left {
			return b[:m.left], true
		}
		return b, false
	case byClose:
		return b, false
	}
	if m.chunks.left == 0 {
		n, bad := m.chunks.advance(b)
		m.from += n
		b = b[n:]
		if bad != nil {
			m.err = bad
			return nil, false
		}
		if m.chunks.state == chunkTrailers {
			if err := m.readTrailers(); err != nil {
				m.err = err
			}
			return nil, m.done
		}
	}
	left := m.chunks.left
	if int64(len(b)) < left {
		return b, false
	}
	rest := b[left:]
	return b[:left], len(rest) >= len(lastChunk) && string(rest[:len(lastChunk)]) == lastChunk
}

// skip reads the rest of the body away if it is in the buffer, and tells whether
// the body has ended.
func (m *incoming) skip() bool {
	p, all := m.buffered()
	if !all {
		return false
	}
	if !m.done {
		m.from += len(p)
		if m.body == byChunks {
			m.from += len(lastChunk)
		}
		m.left, m.chunks.left = 0, 0
		m.done = true
	}
	return true
}
