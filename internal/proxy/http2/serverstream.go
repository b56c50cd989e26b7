package http2

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// serverStream is a request of a client: a message.Stream.
type serverStream struct {
	stream
	sc    *serverConn
	req   message.Request
	head  block
	begun bool // the final head was sent
}

var serverStreams = sync.Pool{New: func() any { return new(serverStream) }}

// accept makes s the stream id; mu is held.
func (s *serverStream) accept(sc *serverConn, id uint32, end bool) {
	s.begin(&sc.conn, s)
	s.sc, s.id = sc, id
	s.begun = false
	s.recvEnd = end
	if !end {
		s.left = s.head.length
	}
	sc.streams[id] = &s.stream
	sc.open++
	sc.handlers++
}

// run handles the request.
func (s *serverStream) run() {
	s.sc.handler(s)
	s.finish()
}

// finish ends a stream whose handler has returned.
func (s *serverStream) finish() {
	sc := s.sc
	sc.mu.Lock()
	if s.err == nil {
		switch {
		case !s.sentEnd:
			s.abort(InternalError, errAborted)
		case !s.recvEnd:
			// The response is complete, whatever the client still sends: RFC 9113 8.1.
			s.abort(NoError, errEnded)
			sc.resets.give(1)
		default:
			sc.resets.give(1)
		}
	}
	s.end()
	sc.handlers--
	sc.flush(true)
	if sc.handlers == 0 {
		sc.idleSince = clock()
		if sc.err != nil {
			sc.quiet.Broadcast()
		} else if sc.drain == final {
			sc.interrupt()
		}
	}
	sc.mu.Unlock()
	if !s.tainted {
		serverStreams.Put(s)
	}
}

func (s *serverStream) wasReset(code Code) error {
	if s.closedLocked() {
		return s.c.spend()
	}
	done := s.sentEnd
	s.broken(&StreamError{Code: code, Remote: true})
	if done {
		return s.c.spend()
	}
	return s.sc.fault()
}

func (s *serverStream) fault() error        { return s.sc.fault() }
func (s *serverStream) dataAllowed() string { return "" }

// Request returns the head.
func (s *serverStream) Request() *message.Request { return &s.req }

// Conn returns what is known of the connection.
func (s *serverStream) Conn() *message.ConnInfo { return s.sc.info }

// ReadBody reads of the body, and asks the client for it if it waits for that.
func (s *serverStream) ReadBody(p []byte) (int, error) {
	if s.req.Expect100 {
		s.goOn()
	}
	n, err := s.readBody(p)
	if err != nil && err != io.EOF {
		err = messageError(err)
	}
	return n, err
}

// goOn sends 100 Continue, unless the body or the response came first.
func (s *serverStream) goOn() {
	s.req.Expect100 = false
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.begun && !s.recvEnd && len(s.in) == 0 && s.lastData == 0 && s.writeError() == nil {
		s.appendHead(&message.Response{Status: 100}, false)
		s.c.flush(true)
	}
}

// messageError says what err means for the request.
func messageError(err error) *message.Error {
	var se *StreamError
	switch {
	case err == errStopped:
		return errNotWanted
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSlowBody
	case errors.As(err, &se) && !se.Remote:
		return &message.Error{Reason: se.Reason}
	}
	return errGone
}

var (
	errNotWanted = &message.Error{Reason: "body is not wanted"}
	errSlowBody  = &message.Error{Status: 408, Reason: "body took too long"}
	errGone      = &message.Error{Reason: "client has left"}
)

// RequestTrailers are valid after the end of the body.
func (s *serverStream) RequestTrailers() []message.Field { return s.trailerFields() }

// WriteInformational sends a 1xx head.
func (s *serverStream) WriteInformational(r *message.Response) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.writeError(); err != nil {
		return messageError(err)
	}
	s.appendHead(r, false)
	s.c.flush(true)
	return nil
}

// WriteHead begins the response.
func (s *serverStream) WriteHead(r *message.Response, end bool) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.writeError(); err != nil {
		return messageError(err)
	}
	s.begun = true
	s.appendHead(r, end)
	if end {
		s.endSend()
		s.c.flush(true)
	}
	return nil
}

func (s *serverStream) appendHead(r *message.Response, end bool) {
	c := s.c
	status := r.Status
	if r.Upgrade {
		status = 200 // RFC 8441 5
	}
	start := len(c.wbuf)
	c.wbuf = c.enc.AppendStatus(c.enc.Begin(append(c.wbuf, emptyHeader[:]...)), status)
	if r.Length > 0 && !r.Upgrade {
		c.wbuf = c.enc.AppendContentLength(c.wbuf, int64(r.Length))
	}
	c.wbuf = c.appendFields(c.wbuf, r.Fields)
	c.wbuf = endHeaders(c.wbuf, start, s.id, end, c.peerFrame)
}

// WriteBody sends of the body, and waits for the client's windows.
func (s *serverStream) WriteBody(p []byte, end bool) error {
	if err := s.writeBody(p, end); err != nil {
		return messageError(err)
	}
	return nil
}

// WriteTrailers ends the response.
func (s *serverStream) WriteTrailers(fields []message.Field) error {
	if err := s.writeTrailers(fields); err != nil {
		return messageError(err)
	}
	return nil
}

// Gone tells whether the client has reset the stream, or left.
func (s *serverStream) Gone() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.failure() != nil
}

// Hijack gives the bytes of a stream whose protocol was changed.
func (s *serverStream) Hijack() (net.Conn, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.begun || s.sentEnd {
		return nil, errors.New("stream has no open response to hijack")
	}
	s.c.flush(true)
	return &tunnel{stream: &s.stream, read: s.readBody}, nil
}

// Abort resets the stream.
func (s *serverStream) Abort() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.abort(InternalError, errAborted)
	s.c.flushLater()
}
