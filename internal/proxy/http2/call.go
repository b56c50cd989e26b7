package http2

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// call is a request to an endpoint: a message.Call.
type call struct {
	stream
	cc     *ClientConn
	at     int64 // where its HEADERS begin in all that was ever written
	unsent bool
	sent   bool // Send was called

	isHead, upgrade bool
	head            block
	status          int
	final           bool // the final head has come
	received        bool // and Receive returned it
	informational   []informational
}

// informational is a 1xx head that was not received yet.
type informational struct {
	status int
	fields block
}

// maxInformational bounds them.
const maxInformational = 8

var calls = sync.Pool{New: func() any { return new(call) }}

// open makes s a call of c that has no stream yet. mu is held.
func (s *call) open(c *ClientConn) {
	s.begin(&c.conn, s)
	s.cc, s.id = c, 0
	s.closed = true // nothing counts it yet
	s.unsent, s.sent, s.final, s.received, s.isHead, s.upgrade = false, false, false, false, false, false
	s.informational = s.informational[:0]
}

// Send begins the request.
func (s *call) Send(r *message.Request, end bool) error {
	c := s.cc
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.sent {
		return errors.New("call was sent already")
	}
	s.unsent = true
	upgrade := len(r.Upgrade) > 0
	if upgrade {
		if err := s.awaitSettings(); err != nil {
			return err
		}
	}
	if err := s.writeError(); err != nil {
		return err
	}
	if c.goneAway != nil {
		return c.goneAway
	}
	if c.nextID > maxStreamID {
		c.draining = true
		return ErrDraining
	}
	s.unsent, s.sent = false, true
	s.id = c.nextID
	c.nextID += 2
	if c.nextID > maxStreamID {
		c.draining = true
	}
	s.sendWin = c.peerWindow
	s.closed = false
	c.open++
	c.streams[s.id] = &s.stream
	s.isHead, s.upgrade = string(r.Method) == "HEAD", upgrade

	start := len(c.wbuf)
	s.at = c.queued + int64(start)
	e, method := c.enc, r.Method
	if upgrade {
		method = connectName
	}
	c.wbuf = e.AppendMethod(e.Begin(append(c.wbuf, emptyHeader[:]...)), method)
	if upgrade || string(method) != "CONNECT" {
		c.wbuf = e.AppendPath(e.AppendScheme(c.wbuf, r.Scheme), r.Path)
	}
	c.wbuf = e.AppendAuthority(c.wbuf, r.Authority)
	if upgrade {
		c.wbuf = e.AppendProtocol(c.wbuf, r.Upgrade)
	}
	if r.Length > 0 && !upgrade {
		c.wbuf = e.AppendContentLength(c.wbuf, int64(r.Length))
	}
	if r.Trailers {
		c.wbuf = e.AppendField(c.wbuf, &teTrailers)
	}
	c.wbuf = c.appendFields(c.wbuf, r.Fields)
	c.wbuf = endHeaders(c.wbuf, start, s.id, end && !upgrade, c.peerFrame)
	if end && !upgrade {
		s.endSend()
	}
	return nil
}

var teTrailers = message.Field{Name: []byte("te"), Value: []byte("trailers"), ID: message.TE}

// awaitSettings waits until it is known whether the endpoint takes extended
// CONNECT.
func (s *call) awaitSettings() error {
	c := s.cc
	for !c.peerHasSettled {
		c.flush(false)
		if err := s.writeError(); err != nil {
			return err
		}
		if c.peerHasSettled {
			break
		}
		if err := s.waitToWrite(true); err != nil {
			return err
		}
	}
	if !c.peerConnect {
		return ErrNoExtendedConnect
	}
	return nil
}

// WriteBody sends of the body, and waits for the endpoint's windows.
func (s *call) WriteBody(p []byte, end bool) error { return s.writeBody(p, end) }

// WriteTrailers ends the request.
func (s *call) WriteTrailers(fields []message.Field) error { return s.writeTrailers(fields) }

// takeHead takes a response's head. mu is held.
func (s *call) takeHead(end bool, p []byte) error {
	c := s.cc
	if err := s.head.decode(c.dec, p, responseHead, c.maxHeaderBytes, c.maxHeaders); err != nil {
		return err
	}
	status, reason := s.head.statusCode()
	if s.head.tooLarge {
		reason = "response's head is too large"
	}
	if reason == "" && status < 200 {
		switch {
		case end || status == 101:
			reason = "bad informational response"
		case status == 100:
			return c.spend()
		case len(s.informational) == maxInformational:
			reason = "too many informational responses"
		default:
			s.informational = append(s.informational, informational{status, s.head})
			s.head = block{}
			s.rcond.Broadcast()
			return c.spend()
		}
	}
	noBody := s.isHead || status == 204 || status == 304
	if reason == "" && end && !noBody && s.head.length > 0 {
		reason = "body and content-length differ"
	}
	if reason != "" {
		return c.reset(&s.stream, ProtocolError, reason)
	}
	s.status, s.final = status, true
	switch {
	case noBody:
		s.left = 0
	case s.upgrade && status < 300:
		s.left = -1
	default:
		s.left = s.head.length
	}
	c.control.give(8)
	s.lastData = c.lastRead
	if end {
		s.endRecv()
	}
	s.rcond.Broadcast()
	return nil
}

// Receive reads the next head.
func (s *call) Receive(r *message.Response) error {
	c := s.cc
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Reset()
	c.flush(true)
	for {
		switch {
		case len(s.informational) > 0:
			first := s.informational[0]
			s.informational = s.informational[:copy(s.informational, s.informational[1:])]
			r.Status = first.status
			r.Fields = append(r.Fields, first.fields.fields...)
			return nil
		case s.final && !s.received && s.err == nil:
			s.received = true
			s.fill(r)
			return nil
		case s.failure() != nil:
			return s.failure()
		case s.received:
			return io.EOF
		case !s.sent:
			return errors.New("call was not sent")
		case s.rdead.hit:
			return os.ErrDeadlineExceeded
		}
		s.rcond.Wait()
	}
}

// fill gives the final head.
func (s *call) fill(r *message.Response) {
	r.Status = s.status
	r.Fields = append(r.Fields, s.head.fields...)
	r.Upgrade = s.upgrade && s.status < 300
	switch {
	case r.Upgrade:
		r.Length = message.UnknownLength
	case s.head.length >= 0:
		r.Length = message.Length(s.head.length)
	case s.recvEnd && !s.hasTrail, s.isHead, s.status == 204, s.status == 304:
		r.Length = message.Length(len(s.in)) // all of it is here
	default:
		r.Length = message.UnknownLength
	}
}

// ReadBody reads of the response's body.
func (s *call) ReadBody(p []byte) (int, error) { return s.readBody(p) }

// Trailers are valid after the end of the body.
func (s *call) Trailers() []message.Field { return s.trailerFields() }

// SetDeadline bounds all reads and writes from now on.
func (s *call) SetDeadline(t time.Time) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.both = true
	s.rdead.set(&s.stream, t)
}

// Hijack gives the bytes of a stream whose protocol was changed.
func (s *call) Hijack() (net.Conn, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.received || !s.upgrade || s.status >= 300 {
		return nil, errors.New("call has no upgraded stream to hijack")
	}
	s.both = false
	s.rdead.set(&s.stream, time.Time{})
	return &tunnel{stream: &s.stream, read: s.readBody}, nil
}

// Unsent tells whether the endpoint cannot have acted on the request.
func (s *call) Unsent() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.unsent || !s.sent || s.c.err != nil && !s.final && s.at >= s.c.queued
}

// Close ends the call, and resets the stream if it is not complete.
func (s *call) Close() {
	c := s.cc
	c.mu.Lock()
	if s.sent {
		code := Cancel
		if s.recvEnd {
			code = NoError
		}
		s.abort(code, errEnded)
	}
	s.end()
	c.inFlight--
	c.lastUse = time.Now()
	c.wakeOpens()
	if c.draining && c.inFlight == 0 {
		c.interrupt()
	}
	c.flush(true)
	c.mu.Unlock()
	if !s.tainted {
		calls.Put(s)
	}
}

// Abort ends the call at once.
func (s *call) Abort() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.err == nil {
		s.abort(Cancel, errAborted)
		s.broken(errAborted) // even if all has arrived, or nothing was sent
	}
	s.c.flushLater()
}

func (s *call) wasReset(code Code) error {
	switch {
	case s.closedLocked():
	case s.recvEnd:
		// The response is whole; the endpoint does not want the rest of the request.
		s.endSend()
		s.wcond.Broadcast()
	default:
		s.unsent = code == RefusedStream && !s.final
		s.broken(&StreamError{Code: code, Remote: true})
	}
	return s.c.spend()
}

func (s *call) fault() error { return s.c.spend() }

func (s *call) dataAllowed() string {
	if !s.final {
		return "DATA before the head of the response"
	}
	return ""
}
