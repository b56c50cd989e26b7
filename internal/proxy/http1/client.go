package http1

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

const (
	// maxResponseHead and maxResponseFields bound what an endpoint may answer.
	maxResponseHead   = 64 << 10
	maxResponseFields = 200
)

// errClosed is the end of a connection where a response should begin.
var errClosed = refuse(502, "connection closed before the response")

// Client is a connection to an endpoint, and the one call that is on it: it
// implements message.Call. After Close, if Reusable says so, it can be used for
// another call, which begins with Send. While it is not used it holds no buffer.
//
// It does not send "expect: 100-continue", and takes 100 for nothing.
type Client struct {
	w    wire
	in   incoming
	out  outgoing
	head head
	asked
	// split says that the body is sent by another goroutine perhaps, and mu guards
	// out then.
	split bool
	mu    sync.Mutex
	// before is what had been sent when the call began.
	before int64
	begun  bool
	// final says that the final head was read, heard that any byte of it was.
	final, heard bool
	// bare says that the response has no body whatever its fields say.
	bare     bool
	persist  bool
	upgraded bool
	hijacked bool
	failed   error
	reusable bool

	// try is tryRead, and failure what it found.
	try     func(fd uintptr) bool
	failure error
	// sending says that tryRead is to send the head first, and unsent is what of it
	// did not go.
	sending bool
	unsent  []byte
}

var _ message.Call = (*Client)(nil)

// NewClient takes a connection, on which nothing of HTTP has been sent.
func NewClient(conn net.Conn) *Client {
	c := &Client{reusable: true}
	c.w.init(conn)
	c.try = c.tryRead
	c.in.w, c.out.w = &c.w, &c.w
	c.in.maxHead, c.in.maxFields = maxResponseHead, maxResponseFields
	return c
}

// Send begins a call. With a body of unknown length, what is written first decides
// how it is framed.
func (c *Client) Send(r *message.Request, end bool) error {
	c.reusable, c.final, c.heard, c.upgraded, c.failed = false, false, false, false, nil
	c.begun, c.sending, c.unsent = false, false, nil
	c.before = c.w.sent
	c.split = !end
	if r.Upgrade != nil && !end {
		return errBodyDone
	}
	b, err := appendRequestHead(c.out.start(), r)
	if err != nil {
		c.out.release()
		return err
	}
	c.begun = true
	c.asked.head = string(r.Method) == "HEAD"
	c.asked.upgrade = append(c.asked.upgrade[:0], r.Upgrade...)
	body, length := undecided, int64(0)
	switch {
	case end && expectsBody(r.Method):
		body = byLength
	case end:
		body = noBody
	case r.Length > 0:
		body, length = byLength, int64(r.Length)
	}
	c.out.head(b, body, length)
	return nil
}

// WriteBody sends of the body.
func (c *Client) WriteBody(p []byte, end bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.write(p, end)
}

// WriteTrailers ends the request.
func (c *Client) WriteTrailers(fields []message.Field) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.trailers(fields)
}

// Flush sends what is in the buffer. An unknown length is then sent in chunks.
func (c *Client) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.flush()
}

// Receive reads the next head. Its errors are of type *message.Error with status
// 502 where the endpoint broke the protocol or closed the connection,
// os.ErrDeadlineExceeded after a deadline, and others of the connection.
func (c *Client) Receive(r *message.Response) error {
	switch {
	case c.split:
		// The head may wait for a body that never comes.
		if err := c.flushHead(); err != nil {
			c.failed = err
			return err
		}
	case c.out.buf == nil:
	case c.w.raw != nil && c.in.buf == nil && c.out.err == nil:
		c.sending = true
	default:
		if err := c.out.flush(); err != nil {
			c.failed = err
			return err
		}
	}
	for {
		if err := c.receive(r); err != nil {
			c.failed = err
			return err
		}
		if r.Status != 100 {
			return nil
		}
	}
}

// flushHead sends a head that is in the buffer, unless that is being done. An
// error is left to whoever sends the body: the response may be here already.
func (c *Client) flushHead() error {
	if !c.mu.TryLock() {
		return nil
	}
	defer c.mu.Unlock()
	if c.out.buf == nil || c.out.err != nil {
		return nil
	}
	return c.out.flush()
}

func (c *Client) receive(r *message.Response) error {
	m := &c.in
	m.end()
	for tried := 0; ; {
		b := m.buf[m.from:m.to]
		if len(b) > 0 && (tried == 0 || bytes.IndexByte(b[tried:], '\n') >= 0) {
			r.Reset()
			c.head.reset()
			n, http10, bad := parseResponse(b, r, &c.head, &c.asked, maxResponseFields)
			if bad == nil && n > maxResponseHead {
				bad = errHeadSize
			}
			if bad != nil {
				return asResponse(bad)
			}
			if n > 0 {
				m.from += n
				c.begin(r, http10)
				return nil
			}
		}
		if len(b) >= maxResponseHead {
			return asResponse(errHeadSize)
		}
		tried = len(b)
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// fill reads more of a head. A connection that waits for one holds no buffer.
func (c *Client) fill() error {
	m := &c.in
	for {
		var err error
		switch {
		case m.buf != nil:
			err = m.fill()
		case c.w.raw != nil:
			if err = c.w.await(c.try); err == nil {
				err = c.failure
			}
			if c.unsent != nil {
				if err = c.sendRest(); err == nil {
					continue
				}
			}
		default:
			m.buf = getBuffer(medium)
			err = m.fill()
		}
		switch {
		case err == nil:
			c.heard = true
			return nil
		case err == io.EOF && m.from < m.to:
			return asResponse(errHeadCut)
		case err == io.EOF:
			return errClosed
		case err != errWoken:
			return err
		}
	}
}

// tryRead sends a head that is ready, and on the next call reads without waiting.
// The runtime calls it again when something can be read; because it has begun to
// watch the socket before the head is sent, it misses no answer, and there is no
// need to try in vain whether the answer is there already.
func (c *Client) tryRead(fd uintptr) bool {
	if c.sending {
		c.sending = false
		n, _ := syscall.Write(int(fd), c.out.buf)
		n = max(n, 0)
		c.w.sent += int64(n)
		if n == len(c.out.buf) {
			c.out.release()
			return false
		}
		c.unsent, c.failure = c.out.buf[n:], nil
		return true
	}
	b := getBuffer(medium)
	n, again, err := readSocket(fd, b)
	if n > 0 {
		c.in.buf, c.in.from, c.in.to = b, 0, n
		c.failure = nil
		return true
	}
	putBuffer(b)
	if err == nil {
		err = io.EOF
	}
	c.failure = err
	return !again
}

// sendRest sends what tryRead could not, with patience, and finds out why.
func (c *Client) sendRest() error {
	c.out.err = c.w.send(c.unsent)
	c.unsent = nil
	c.out.release()
	return c.out.err
}

// begin takes a head that was parsed.
func (c *Client) begin(r *message.Response, http10 bool) {
	body, length := noBody, int64(0)
	c.bare = c.bodyless(r.Status)
	if !c.bare {
		switch {
		case r.Length > 0:
			body, length = byLength, int64(r.Length)
		case c.head.chunked:
			body = byChunks
		case r.Length == message.UnknownLength:
			body = byClose
		}
	}
	c.in.begin(body, length)
	c.upgraded = r.Upgrade
	c.final = r.Status >= 200 || r.Upgrade
	c.persist = c.head.persistent(http10) && body != byClose
}

// ReadBody reads of the response's body. Its errors are those of Receive.
func (c *Client) ReadBody(p []byte) (int, error) {
	for {
		n, err := c.in.read(p)
		if err == errWoken {
			continue
		}
		if err != nil && err != io.EOF {
			var bad *message.Error
			if errors.As(err, &bad) {
				err = asResponse(bad)
			}
			c.failed = err
		}
		return n, err
	}
}

// Buffered returns what of the body has arrived.
func (c *Client) Buffered() ([]byte, bool) { return c.in.buffered() }

// Trailers are those after the body.
func (c *Client) Trailers() []message.Field { return c.in.trailers }

// SetDeadline bounds all reads and writes from now on; zero: no bound. It costs
// little when the time left is about what it was for earlier calls.
func (c *Client) SetDeadline(t time.Time) { c.w.setDeadline(t) }

// Hijack gives the connection after a response with Upgrade.
func (c *Client) Hijack() (net.Conn, error) {
	if !c.upgraded || c.hijacked {
		return nil, errNoUpgrade
	}
	c.hijacked = true
	return c.w.release(c.in.buf[c.in.from:c.in.to]), nil
}

// Unsent tells, after an error, whether the endpoint cannot have acted on the
// request: nothing was written, or the endpoint's kernel has taken nothing of it
// and has said that the connection is over.
func (c *Client) Unsent() bool {
	if !c.begun {
		return true
	}
	if c.failed == nil && c.out.err == nil || c.heard {
		return false
	}
	if c.w.sent == c.before {
		return true
	}
	if errors.Is(c.failed, os.ErrDeadlineExceeded) || errors.Is(c.out.err, os.ErrDeadlineExceeded) {
		return false // it may still be under way
	}
	acked, ok := c.w.acked()
	return ok && acked <= c.before
}

// acked returns how many bytes the other side's kernel has taken.
func (w *wire) acked() (int64, bool) {
	if w.raw == nil {
		return 0, false // bytes of TLS are not those that were sent
	}
	var info *unix.TCPInfo
	err := w.raw.Control(func(fd uintptr) {
		info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err != nil || info == nil {
		return 0, false
	}
	return int64(info.Bytes_acked) - 1, true // the SYN counts as one
}

// Close ends the call. A connection that cannot be used again is closed.
func (c *Client) Close() {
	if c.hijacked {
		c.in.drop()
		return
	}
	c.mu.Lock()
	c.reusable = c.inOrder()
	c.out.release()
	c.mu.Unlock()
	c.in.drop()
	if !c.reusable {
		_ = c.w.conn.Close()
	}
}

// inOrder tells whether the next call can begin: nothing is left of this one, on
// either side.
func (c *Client) inOrder() bool {
	switch {
	case c.w.aborted.Load():
		return false
	case !c.begun:
		return true
	case c.failed != nil || c.out.err != nil || !c.out.done || c.out.buf != nil:
		return false
	case !c.final || !c.persist || c.upgraded || !c.in.skip() || c.in.from != c.in.to:
		return false
	}
	// A body where none may be would be taken for the next response.
	return !c.bare || c.w.peek() == peekQuiet
}

// Reusable tells, after Close, whether the connection can be used again. Who
// keeps it looks whether the endpoint has closed it meanwhile.
func (c *Client) Reusable() bool { return c.reusable }

// Abort ends the connection at once, with a reset. Close is still to be called.
func (c *Client) Abort() { c.w.abort() }

// Conn returns the connection, for what is known of it.
func (c *Client) Conn() net.Conn { return c.w.conn }
