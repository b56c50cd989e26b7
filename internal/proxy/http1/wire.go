package http1

import (
	"crypto/tls"
	"errors"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// epoch is when the clock of this package began.
var epoch = time.Now()

// clock returns nanoseconds since epoch, of the monotonic clock.
func clock() int64 { return int64(time.Since(epoch)) }

var (
	// errTimeout is the end of what deadline.by allowed.
	errTimeout = os.ErrDeadlineExceeded
	// errWoken is a timeout that came early: the deadline has been set anew.
	errWoken = errors.New("woken")
)

// deadline is one of a connection's. Setting a connection's deadline changes a
// timer of the runtime, which costs more than a head costs to parse; so one that
// is set is left alone as long as it does not come too late. When it comes too
// early, it is set again.
type deadline struct {
	// by is when to give up, as clock counts; 0: never.
	by atomic.Int64
	// armed is what the connection has; 0: none.
	armed atomic.Int64
	mu    sync.Mutex
}

// late tells whether what the connection has comes later than by.
func (d *deadline) late() bool {
	by := d.by.Load()
	a := d.armed.Load()
	return by != 0 && (a == 0 || a > by)
}

// arm makes the connection have by.
func (d *deadline) arm(set func(time.Time) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed.Store(math.MaxInt64) // who changes by from here on comes here too
	by := d.by.Load()
	if by == 0 {
		_ = set(time.Time{})
	} else {
		_ = set(epoch.Add(time.Duration(by)))
	}
	d.armed.Store(by)
}

// fire makes what waits now, or will, find its time over. It is to look why.
func (d *deadline) fire(set func(time.Time) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed.Store(1)
	_ = set(epoch)
}

// expired tells whether by has come.
func (d *deadline) expired() bool {
	by := d.by.Load()
	return by != 0 && clock() >= by
}

// wire is a connection. One goroutine may read while another one writes.
type wire struct {
	conn net.Conn
	// raw is the socket of a connection that is nothing but one: TCP or Unix.
	raw         syscall.RawConn
	read, write deadline
	// patience renews the deadline for writes that make progress; 0: it stays.
	patience time.Duration
	// sent counts bytes written.
	sent int64
	// vector is what writev gets.
	vector  net.Buffers
	vectors [3][]byte
	aborted atomic.Bool
}

func (w *wire) init(conn net.Conn) {
	w.conn = conn
	switch c := conn.(type) {
	case *net.TCPConn:
		w.raw, _ = c.SyscallConn()
	case *net.UnixConn:
		w.raw, _ = c.SyscallConn()
	}
}

// receive reads into p. It returns errWoken if a deadline came too early, and
// errTimeout if it came in time.
func (w *wire) receive(p []byte) (int, error) {
	if w.read.late() {
		w.read.arm(w.conn.SetReadDeadline)
	}
	n, err := w.conn.Read(p)
	if n > 0 || err == nil {
		return n, nil
	}
	return 0, w.readError(err)
}

// readError tells a timeout that is none.
func (w *wire) readError(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if w.read.expired() {
		return errTimeout
	}
	w.read.arm(w.conn.SetReadDeadline)
	return errWoken
}

// await waits until something can be read, without a buffer; try reads it, and
// returns false if there is nothing. It is for connections with raw.
func (w *wire) await(try func(fd uintptr) bool) error {
	if w.read.late() {
		w.read.arm(w.conn.SetReadDeadline)
	}
	if err := w.raw.Read(try); err != nil {
		return w.readError(err)
	}
	return nil
}

// readSocket reads without waiting; again is true if there is nothing.
func readSocket(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err = syscall.Read(int(fd), p)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, true, nil
		case err != nil:
			return 0, false, os.NewSyscallError("read", err)
		}
		return n, false, nil
	}
}

// beforeWrite makes sure of the deadline.
func (w *wire) beforeWrite() {
	d := &w.write
	if w.patience > 0 {
		d.by.Store(clock() + int64(w.patience))
	}
	by, armed := d.by.Load(), d.armed.Load()
	if by == 0 {
		if armed != 0 {
			d.arm(w.conn.SetWriteDeadline)
		}
		return
	}
	// A deadline that comes too early cannot be made good on a connection of TLS,
	// so half of the time must be left.
	if armed == 0 || armed > by || armed < by-(by-clock())/2 {
		d.arm(w.conn.SetWriteDeadline)
	}
}

// afterWrite tells whether to go on after an error that came when n bytes had
// been taken.
func (w *wire) afterWrite(n int64, err error) (again bool, _ error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, err
	}
	if w.raw == nil { // TLS cannot go on after a timeout
		return false, errTimeout
	}
	if n > 0 && w.patience > 0 || !w.write.expired() {
		if w.patience > 0 {
			w.write.by.Store(clock() + int64(w.patience))
		}
		w.write.arm(w.conn.SetWriteDeadline)
		return true, nil
	}
	return false, errTimeout
}

// send writes b whole.
func (w *wire) send(b []byte) error {
	for len(b) > 0 {
		part := b
		if w.raw == nil && len(part) > large {
			part = part[:large] // progress is seen between parts only
		}
		w.beforeWrite()
		n, err := w.conn.Write(part)
		w.sent += int64(n)
		b = b[n:]
		if err != nil {
			again, err := w.afterWrite(int64(n), err)
			if !again {
				return err
			}
		}
	}
	return nil
}

// sendVector writes a, b and c whole, in one system call if it can be.
func (w *wire) sendVector(a, b, c []byte) error {
	if w.raw == nil {
		for _, p := range [...][]byte{a, b, c} {
			if err := w.send(p); err != nil {
				return err
			}
		}
		return nil
	}
	w.vector = w.vectors[:0]
	for _, p := range [...][]byte{a, b, c} {
		if len(p) > 0 {
			w.vector = append(w.vector, p)
		}
	}
	defer clear(w.vectors[:])
	for {
		w.beforeWrite()
		n, err := w.vector.WriteTo(w.conn)
		w.sent += n
		if err == nil {
			return nil
		}
		if again, err := w.afterWrite(n, err); !again {
			return err
		}
	}
}

// setDeadline bounds reads and writes from now on; zero: no bound.
func (w *wire) setDeadline(t time.Time) {
	by := int64(0)
	if !t.IsZero() {
		by = max(1, int64(t.Sub(epoch)))
	}
	w.read.by.Store(by)
	w.write.by.Store(by)
	// What waits already must not wait too long.
	if w.read.late() {
		w.read.arm(w.conn.SetReadDeadline)
	}
	if w.write.late() {
		w.write.arm(w.conn.SetWriteDeadline)
	}
}

// abort ends the connection so that the other side cannot take what it got for
// whole: with a reset. Any goroutine may call it.
func (w *wire) abort() {
	w.aborted.Store(true)
	if tcp := w.socket(); tcp != nil {
		_ = tcp.SetLinger(0)
		if tcp != w.conn {
			_ = tcp.Close() // a close_notify would say that all is well
		}
	}
	_ = w.conn.Close()
}

// socket returns the TCP connection under all, or nil.
func (w *wire) socket() *net.TCPConn {
	conn := w.conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	tcp, _ := conn.(*net.TCPConn)
	return tcp
}

// release hands the connection on: without deadlines, and with rest, what was read
// of it already, put back.
func (w *wire) release(rest []byte) net.Conn {
	_ = w.conn.SetDeadline(time.Time{})
	if len(rest) == 0 {
		return w.conn
	}
	return &rereadConn{Conn: w.conn, rest: append([]byte(nil), rest...)}
}

// rereadConn gives rest before what comes from the connection.
type rereadConn struct {
	net.Conn
	rest []byte
}

// Read reads rest first.
func (c *rereadConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// CloseWrite ends what this side writes, if the connection can.
func (c *rereadConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
