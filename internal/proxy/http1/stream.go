package http1

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// stream is one request of a client's connection. An idle connection has none.
type stream struct {
	c    *server
	req  message.Request
	head head
	in   incoming
	out  outgoing

	// What the request said, which the engine cannot change.
	http10, isHead bool
	upgrade        []byte
	// expects says that the client announced to wait for "100 Continue". Then mu
	// guards waits, wroteHead and the writing of either answer.
	expects bool
	mu      sync.Mutex
	waits   bool

	wroteHead bool
	// persist says that the connection may be used again.
	persist  bool
	upgraded bool
	hijacked bool
	// ended and failed are how the reading of the body went: WriteHead may run at
	// the same time.
	ended, failed atomic.Bool
	// far says that the body is too long to be read away.
	far     bool
	stopped atomic.Bool
	broken  atomic.Bool
}

// streams keep a small buffer each.
var streams = sync.Pool{New: func() any { return new(stream) }}

func getStream(c *server) *stream {
	s := streams.Get().(*stream)
	s.c = c
	s.in.w, s.out.w = &c.w, &c.w
	s.in.maxHead, s.in.maxFields = c.limits.MaxHead, c.limits.MaxFields
	if s.in.buf == nil {
		s.in.buf = getBuffer(small)
	}
	return s
}

func putStream(s *stream) {
	s.in.end()
	if cap(s.in.buf) != small {
		putBuffer(s.in.buf)
		s.in.buf = nil
	}
	s.in.from, s.in.to = 0, 0
	s.out.release()
	s.c, s.in.w, s.out.w = nil, nil, nil
	s.hijacked = false
	streams.Put(s)
}

// begin takes the head that was parsed.
func (s *stream) begin() {
	s.http10 = s.req.HTTP10
	s.isHead = string(s.req.Method) == "HEAD"
	s.upgrade = s.req.Upgrade
	s.expects, s.waits = s.req.Expect100, s.req.Expect100
	s.wroteHead, s.upgraded, s.hijacked = false, false, false
	s.persist = s.head.persistent(s.http10)
	s.stopped.Store(false)
	s.broken.Store(false)
	s.ended.Store(s.req.Length == message.NoBody)
	s.failed.Store(false)
	s.far = s.req.Length > maxDrain
	s.out.body, s.out.drop, s.out.done, s.out.err = noBody, false, false, nil
	switch s.req.Length {
	case message.NoBody:
		s.in.begin(noBody, 0)
	case message.UnknownLength:
		s.in.begin(byChunks, 0)
	default:
		s.in.begin(byLength, int64(s.req.Length))
	}
}

// Request is the head.
func (s *stream) Request() *message.Request { return &s.req }

// Conn is what is known of the connection.
func (s *stream) Conn() *message.ConnInfo { return s.c.info }

// ReadBody reads of the request's body.
func (s *stream) ReadBody(p []byte) (int, error) {
	if s.expects {
		if err := s.sendContinue(); err != nil {
			return 0, s.writeError(err)
		}
	}
	if !s.in.done {
		s.c.w.read.by.Store(clock() + int64(s.c.limits.Body))
	}
	for {
		if s.stopped.Load() {
			return 0, errStopped
		}
		n, err := s.in.read(p)
		if s.in.done {
			s.ended.Store(true)
		} else if err != nil && err != errWoken {
			s.failed.Store(true)
		}
		if err != errWoken {
			return n, s.readError(err)
		}
	}
}

// sendContinue tells a client that waits to go on, unless it has, or has an answer.
func (s *stream) sendContinue() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.waits || s.wroteHead {
		return nil
	}
	s.waits = false
	if s.in.from < s.in.to {
		return nil
	}
	return s.c.w.send([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
}

func (s *stream) readError(err error) error {
	switch err {
	case nil, io.EOF:
		return err
	case errTimeout:
		return errBodyTimeout
	}
	var bad *message.Error
	if err != errTruncated && errors.As(err, &bad) {
		return bad
	}
	s.broken.Store(true)
	return errGone
}

func (s *stream) writeError(err error) error {
	if err == nil {
		return nil
	}
	var wrong misuse
	if errors.As(err, &wrong) {
		return err
	}
	s.broken.Store(true)
	if err == errTimeout {
		return errSlow
	}
	return errGone
}

// Buffered returns what of the body has arrived.
func (s *stream) Buffered() ([]byte, bool) {
	p, all := s.in.buffered()
	if all {
		s.ended.Store(true)
	} else if s.in.err != nil {
		s.failed.Store(true)
	}
	return p, all
}

// RequestTrailers are those after the body.
func (s *stream) RequestTrailers() []message.Field { return s.in.trailers }

// drain reads a body that nobody wanted to its end, if that is near.
func (s *stream) drain() bool {
	b := getBuffer(medium)
	defer putBuffer(b)
	s.c.w.read.by.Store(clock() + int64(s.c.limits.Body))
	for total := 0; total < maxDrain; {
		n, err := s.in.read(b)
		total += n
		if err == io.EOF {
			return true
		}
		if err != nil && err != errWoken {
			return false
		}
	}
	return s.in.done
}

// WriteInformational sends a 1xx head; clients of HTTP/1.0 know none.
func (s *stream) WriteInformational(r *message.Response) error {
	if s.expects {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	if s.wroteHead {
		return errHeadTwice
	}
	if r.Status <= 101 || r.Status > 199 {
		return errStatus
	}
	if s.http10 {
		return nil
	}
	b, _, err := appendFields(appendStatusLine(s.out.start(), r.Status), r.Fields)
	if err != nil {
		s.out.release()
		return err
	}
	s.out.buf = append(b, "\r\n"...)
	return s.writeError(s.out.flush())
}

// WriteHead begins the response.
func (s *stream) WriteHead(r *message.Response, end bool) error {
	if s.expects {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	status := r.Status
	switch {
	case s.wroteHead:
		return errHeadTwice
	case r.Upgrade && s.upgrade == nil:
		return errNoUpgrade
	case r.Upgrade:
		status = 101
	case status < 200 || status > 999:
		return errStatus
	}
	none := s.isHead || status == 101 || status == 204 || status == 304
	if end && !none && r.Length > 0 {
		return errBodyShort
	}
	b, dated, err := appendFields(appendStatusLine(s.out.start(), status), r.Fields)
	if err != nil {
		s.out.release()
		return err
	}
	if !dated {
		b = appendDate(b)
	}
	body, length := noBody, int64(0)
	s.out.drop = none
	switch {
	case r.Upgrade:
		b = append(b, "connection: upgrade\r\nupgrade: "...)
		b = append(b, s.upgrade...)
		b = append(b, "\r\n"...)
		s.upgraded = true
	case none:
		if status != 204 && r.Length > 0 {
			b = appendLength(b, int64(r.Length))
		}
	case end || r.Length == message.NoBody:
		body = byLength
	case r.Length > 0:
		body, length = byLength, int64(r.Length)
	case s.http10:
		body = byClose
	default:
		body = undecided
	}
	s.persist = s.persist && s.mayPersist(body)
	switch {
	case s.upgraded:
	case !s.persist:
		b = append(b, "connection: close\r\n"...)
	case s.http10:
		b = append(b, "connection: keep-alive\r\n"...)
	}
	s.wroteHead = true
	s.out.head(b, body, length)
	if end {
		return s.writeError(s.out.flush())
	}
	return nil
}

// mayPersist tells whether the connection can be used after a response with that
// body. A client that still waits for "100 Continue" may send its body or not: what
// follows could be read as either.
func (s *stream) mayPersist(body framing) bool {
	c := s.c
	return body != byClose && !s.waits && !c.closing() &&
		(c.limits.MaxRequests == 0 || c.requests < c.limits.MaxRequests) &&
		!s.failed.Load() && (s.ended.Load() || !s.far)
}

// WriteBody sends of the response's body.
func (s *stream) WriteBody(p []byte, end bool) error {
	if !s.wroteHead {
		return errNoHead
	}
	return s.writeError(s.out.write(p, end))
}

// WriteTrailers ends the response.
func (s *stream) WriteTrailers(fields []message.Field) error {
	if !s.wroteHead {
		return errNoHead
	}
	return s.writeError(s.out.trailers(fields))
}

// Flush sends what is in the buffer.
func (s *stream) Flush() error { return s.writeError(s.out.flush()) }

// StopBody ends the reading of the body.
func (s *stream) StopBody() {
	s.stopped.Store(true)
	s.c.w.read.fire(s.c.w.conn.SetReadDeadline)
}

// Gone tells whether the client has left. One that has ended its half of the
// connection is taken to have: a client that leaves looks the same.
func (s *stream) Gone() bool {
	if s.broken.Load() || s.c.w.aborted.Load() {
		return true
	}
	return s.c.w.peek() == peekEnded
}

// Hijack gives the connection after a response with Upgrade.
func (s *stream) Hijack() (net.Conn, error) {
	if !s.upgraded || s.hijacked {
		return nil, errNoUpgrade
	}
	if err := s.Flush(); err != nil {
		return nil, err
	}
	s.hijacked = true
	return s.c.w.release(s.in.buf[s.in.from:s.in.to]), nil
}

// Abort breaks the response off with a reset.
func (s *stream) Abort() { s.c.w.abort() }

// peeked is what a look at a socket found.
type peeked uint8

const (
	peekQuiet peeked = iota
	// peekData: something can be read.
	peekData
	// peekEnded: the other side has closed or reset the connection.
	peekEnded
)

// peek looks at the socket without waiting. What is not a plain one is quiet.
func (w *wire) peek() peeked {
	found := peekQuiet
	tcp := w.socket()
	if tcp == nil {
		return found
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return peekEnded
	}
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
		case err != nil || n == 0:
			found = peekEnded
		default:
			found = peekData
		}
	})
	if err != nil {
		return peekEnded
	}
	return found
}
