package http2

import (
	"net"
	"time"
)

// tunnel is a stream as a connection: RFC 9113 8.5, RFC 8441. Close ends both
// directions, CloseWrite one.
type tunnel struct {
	stream *stream
	read   func([]byte) (int, error)
}

// Read reads of the DATA.
func (t *tunnel) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return t.read(p)
}

// Write sends DATA.
func (t *tunnel) Write(p []byte) (int, error) {
	if err := t.stream.writeBody(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite ends the DATA.
func (t *tunnel) CloseWrite() error { return t.stream.writeBody(nil, true) }

// Close ends the DATA, and reads no more.
func (t *tunnel) Close() error {
	err := t.CloseWrite()
	t.stream.StopBody()
	if err == errEnded {
		err = nil
	}
	return err
}

// LocalAddr is that of the connection.
func (t *tunnel) LocalAddr() net.Addr { return t.stream.c.nc.LocalAddr() }

// RemoteAddr is that of the connection.
func (t *tunnel) RemoteAddr() net.Addr { return t.stream.c.nc.RemoteAddr() }

// SetDeadline bounds reads and writes of the stream.
func (t *tunnel) SetDeadline(d time.Time) error {
	t.stream.c.mu.Lock()
	defer t.stream.c.mu.Unlock()
	t.stream.rdead.set(t.stream, d)
	t.stream.wdead.set(t.stream, d)
	return nil
}

// SetReadDeadline bounds reads of the stream.
func (t *tunnel) SetReadDeadline(d time.Time) error {
	t.stream.c.mu.Lock()
	defer t.stream.c.mu.Unlock()
	t.stream.rdead.set(t.stream, d)
	return nil
}

// SetWriteDeadline bounds writes of the stream.
func (t *tunnel) SetWriteDeadline(d time.Time) error {
	t.stream.c.mu.Lock()
	defer t.stream.c.mu.Unlock()
	t.stream.wdead.set(t.stream, d)
	return nil
}
