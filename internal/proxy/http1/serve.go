package http1

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Limits bound what a client may do. All must be set but MaxRequests and Heads.
type Limits struct {
	// MaxHead is how long a request's head may be, and a trailer section.
	MaxHead int
	// MaxFields is how many fields each of them may have.
	MaxFields int
	// MaxRequests is how many requests a connection may carry; 0: any number.
	MaxRequests int
	// Head is from the first byte of a head to its last, and from the beginning of
	// a connection to the first byte.
	Head time.Duration
	// Body is between two reads of a body that make progress.
	Body time.Duration
	// Write is between two writes that make progress.
	Write time.Duration
	// Idle is between two requests.
	Idle time.Duration
	// Heads bounds the memory of heads that come slowly, over all connections; nil:
	// no bound.
	Heads *message.Heads
}

// NewLimits returns those of a policy, with its defaults.
func NewLimits(p *model.ListenerPolicy) Limits {
	return Limits{
		MaxHead:     cmp.Or(p.MaxHeaderBytes, 64<<10),
		MaxFields:   cmp.Or(p.MaxHeaders, 100),
		MaxRequests: p.MaxRequestsPerConn,
		Head:        cmp.Or(p.HeaderTimeout, 10*time.Second),
		Body:        cmp.Or(p.BodyIdleTimeout, 60*time.Second),
		Write:       cmp.Or(p.WriteIdleTimeout, 60*time.Second),
		Idle:        cmp.Or(p.KeepAliveTimeout, 75*time.Second),
	}
}

const (
	// maxDrain is how much of a body that nobody wanted is read, so that the
	// connection can be used again, or the answer be read.
	maxDrain = 256 << 10
	// lingerTime is how long a connection is read from after its last answer: to
	// close it at once would make the kernel throw away what the client has not
	// read yet (RFC 9112 9.6).
	lingerTime = 2 * time.Second
	// drainGrace is how long an idle connection that must end waits for a request
	// that may be on its way.
	drainGrace = time.Second
)

// PrefaceError is returned by Serve when a connection begins as one of HTTP/2 does.
type PrefaceError struct {
	// Conn is the connection as it was, with nothing read.
	Conn net.Conn
}

// Error says what the client speaks.
func (*PrefaceError) Error() string { return "http1: the client speaks HTTP/2" }

// server is a client's connection.
type server struct {
	w        wire
	info     *message.ConnInfo
	limits   Limits
	handle   message.Handler
	scheme   []byte
	requests int
	// s is the current request; nil while the connection is idle.
	s *stream
	// try is tryRead, and got and failure what it found.
	try     func(fd uintptr) bool
	failure error
	first   [1]byte
}

var (
	schemeHTTP  = []byte("http")
	schemeHTTPS = []byte("https")
)

// Serve serves one client's connection with h until it ends, and closes it. It
// calls h in its own goroutine, for one request after the other.
//
// It returns nil when the connection ended in order, between two requests, or was
// hijacked; a *message.Error when a request was refused, which has been answered,
// or the client left; and a *PrefaceError when the client speaks HTTP/2: then the
// connection is open.
//
// To drain, let info.Closing return true and then set conn's read deadline to any
// time that has passed: a request that is served goes on, and its response says
// that the connection ends; an idle connection ends after a moment.
func Serve(conn net.Conn, info *message.ConnInfo, limits Limits, h message.Handler) error {
	c := &server{info: info, limits: limits, handle: h, scheme: schemeHTTP}
	if info.TLS != nil {
		c.scheme = schemeHTTPS
	}
	if info.Protocol == "" {
		info.Protocol = "HTTP/1.1"
	}
	c.w.init(conn)
	c.w.patience = limits.Write
	c.try = c.tryRead
	err := c.serve()
	var handed *PrefaceError
	if s := c.s; s != nil {
		if s.hijacked {
			putStream(s)
			return nil
		}
		if err == errPreface {
			handed = &PrefaceError{c.w.release(s.in.buf[s.in.from:s.in.to])}
			putStream(s)
			return handed
		}
		putStream(s)
	}
	_ = conn.Close()
	return err
}

var errPreface = errors.New("preface")

func (c *server) serve() error {
	for {
		if c.s == nil {
			if err := c.await(); err != nil {
				return nil // nothing was asked
			}
		}
		s := c.s
		if err := c.readHead(s); err != nil {
			var bad *message.Error
			if errors.As(err, &bad) {
				c.refuse(s, bad)
			}
			return err
		}
		c.requests++
		c.handle(s)
		if again, err := c.finish(s); !again {
			return err
		}
		if s.in.from == s.in.to {
			c.s = nil
			putStream(s)
		}
	}
}

func (c *server) closing() bool { return c.info.Closing != nil && c.info.Closing() }

// await waits for the first bytes of a request; then c.s has them. A connection
// that waits holds no buffer.
func (c *server) await() error {
	wait := c.limits.Idle
	if c.requests == 0 {
		wait = c.limits.Head
	}
	d := &c.w.read
	d.by.Store(clock() + int64(wait))
	for ending := false; ; {
		if !ending && c.closing() {
			ending = true
			d.by.Store(min(d.by.Load(), clock()+int64(drainGrace)))
		}
		if d.late() {
			d.arm(c.w.conn.SetReadDeadline)
			if !ending && c.closing() {
				continue // the deadline that was to wake this may have been overwritten
			}
		}
		err := c.receiveFirst()
		if err != errWoken {
			return err
		}
	}
}

func (c *server) receiveFirst() error {
	if c.w.raw != nil {
		if err := c.w.await(c.try); err != nil {
			return err
		}
		return c.failure
	}
	n, err := c.w.receive(c.first[:])
	if n > 0 {
		c.s = getStream(c)
		c.s.in.buf[0], c.s.in.to = c.first[0], 1
	}
	return err
}

func (c *server) tryRead(fd uintptr) bool {
	s := getStream(c)
	n, again, err := readSocket(fd, s.in.buf)
	if n > 0 {
		s.in.to = n
		c.s, c.failure = s, nil
		return true
	}
	putStream(s)
	if err == nil {
		err = io.EOF
	}
	c.failure = err
	return !again
}

// readHead reads the head of a request, of which some bytes are here.
func (c *server) readHead(s *stream) error {
	m := &s.in
	held := 0 // of limits.Heads
	defer func() {
		if held > 0 {
			c.limits.Heads.Give(held)
		}
	}()
	for tried := 0; ; {
		b := m.buf[m.from:m.to]
		// Parsing again pays only if a line has ended since.
		if tried == 0 || bytes.IndexByte(b[tried:], '\n') >= 0 {
			n, err := c.parse(s, b)
			if err != nil {
				return err
			}
			if n > 0 {
				return nil
			}
		}
		if len(b) >= c.limits.MaxHead {
			if bytes.IndexByte(b, '\n') < 0 {
				return errLineSize
			}
			return errHeadSize
		}
		if tried == 0 {
			c.w.read.by.Store(clock() + int64(c.limits.Head))
		}
		tried = len(b)
		m.makeRoom()
		if more := len(m.buf) - held; more > 0 {
			if !c.limits.Heads.Take(more) {
				return errHeads
			}
			held += more
		}
		switch err := m.fill(); err {
		case nil, errWoken:
		case errTimeout:
			return errHeadTimeout
		default:
			return errHeadCut
		}
	}
}

// parse tries to read a head from b, and returns 0 if it has not arrived whole.
func (c *server) parse(s *stream, b []byte) (int, error) {
	s.req.Reset()
	s.req.Scheme = c.scheme
	s.head.reset()
	n, err := parseRequest(b, &s.req, &s.head, c.limits.MaxFields)
	if err != nil {
		if err == errVersion && c.requests == 0 && bytes.HasPrefix(b, []byte(preface)) {
			return 0, errPreface
		}
		return 0, err
	}
	if n > c.limits.MaxHead {
		return 0, errHeadSize
	}
	if n > 0 {
		s.in.from += n
		s.begin()
	}
	return n, nil
}

// finish ends what a handler left, and tells whether another request may follow.
func (c *server) finish(s *stream) (again bool, err error) {
	switch {
	case s.hijacked:
		return false, nil
	case c.w.aborted.Load():
		return false, errAborted
	case !s.wroteHead || !s.out.done:
		c.w.abort()
		return false, errUnbroken
	}
	if err := s.Flush(); err != nil {
		return false, err
	}
	whole := s.in.skip()
	if !whole && s.persist {
		whole = s.drain()
	}
	if !s.persist || !whole {
		if !whole || s.head.persistent(s.http10) {
			c.linger() // the client may still be sending
		}
		return false, nil
	}
	s.in.end()
	return true, nil
}

// refuse answers a request that cannot be read, and lets the client read that.
func (c *server) refuse(s *stream, e *message.Error) {
	if e.Status == 0 {
		return
	}
	text := e.Reason + "\n"
	b := appendStatusLine(s.out.start(), e.Status)
	b = appendDate(b)
	b = append(b, "content-type: text/plain\r\nconnection: close\r\ncontent-length: "...)
	b = strconv.AppendInt(b, int64(len(text)), 10)
	b = append(b, "\r\n\r\n"...)
	b = append(b, text...)
	err := c.w.send(b)
	s.out.release()
	if err == nil {
		c.linger()
	}
}

// linger says that nothing more will come, and reads for a while what still comes.
func (c *server) linger() {
	half, ok := c.w.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.w.read.by.Store(clock() + int64(min(lingerTime, c.limits.Body)))
	b := getBuffer(medium)
	defer putBuffer(b)
	for total := 0; total < maxDrain; {
		n, err := c.w.receive(b)
		if err != nil && err != errWoken {
			return
		}
		total += n
	}
}
