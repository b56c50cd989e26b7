package upstream

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/http1"
)

// conn1 is a connection of HTTP/1.1, and at the same time the one call on it.
type conn1 struct {
	*http1.Client
	pool *pool
	// keep says that it may serve another request.
	keep  bool
	since int64
	// deadline says that one is set.
	deadline bool
	hijacked bool
	gone     atomic.Bool

	raw  syscall.RawConn
	peek func(fd uintptr) bool
	// quiet is what peek found: nothing came, and the connection is open.
	quiet bool
	byte  [1]byte
}

func newConn1(p *pool, d dialed, keep bool) *conn1 {
	c := &conn1{Client: http1.NewClient(d.Conn), pool: p, keep: keep}
	if sc, ok := d.raw.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
			c.peek = c.look
		}
	}
	return c
}

// look peeks at the socket without waiting.
func (c *conn1) look(fd uintptr) bool {
	_, _, err := syscall.Recvfrom(int(fd), c.byte[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	c.quiet = err == syscall.EAGAIN
	return true
}

// alive tells whether an idle connection can be used: the other side has neither
// closed it nor said anything that was not asked.
func (c *conn1) alive() bool {
	if c.raw == nil {
		return true
	}
	c.quiet = false
	if c.raw.Read(c.peek) != nil {
		return false
	}
	return c.quiet
}

// SetDeadline bounds all reads and writes from now on; zero: no bound.
func (c *conn1) SetDeadline(t time.Time) {
	if t.IsZero() && !c.deadline {
		return
	}
	c.deadline = !t.IsZero()
	c.Client.SetDeadline(t)
}

// Close ends the call, and gives the connection back if it is in order.
func (c *conn1) Close() {
	if c.hijacked {
		return
	}
	c.SetDeadline(time.Time{})
	c.Client.Close()
	if c.Client.Reusable() {
		c.pool.put(c)
		return
	}
	c.discard()
}

// Abort ends the connection at once. Close is still to be called.
func (c *conn1) Abort() { c.Client.Abort() }

// Hijack gives the raw bytes; the connection is counted out when it is closed.
func (c *conn1) Hijack() (net.Conn, error) {
	conn, err := c.Client.Hijack()
	if err != nil {
		return nil, err
	}
	c.hijacked = true
	return &hijacked1{conn, c}, nil
}

// discard ends the connection.
func (c *conn1) discard() {
	if c.gone.CompareAndSwap(false, true) {
		c.Client.Abort()
		c.pool.lost()
	}
}

// hijacked1 is a connection that was upgraded.
type hijacked1 struct {
	net.Conn
	c *conn1
}

// Close ends it.
func (h *hijacked1) Close() error {
	err := h.Conn.Close()
	h.c.discard()
	return err
}

// CloseWrite ends one direction, if the connection can.
func (h *hijacked1) CloseWrite() error {
	if w, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return io.ErrClosedPipe
}
