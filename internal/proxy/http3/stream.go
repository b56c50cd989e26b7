package http3

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// stream is one request: a message.Stream.
type stream struct {
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	info    *message.ConnInfo
	limits  *Limits
	req     message.Request
	first   []byte // of the body, read to see whether there is one
	trail   []message.Field
	begun   bool // the final head was written
	ended   bool // and all that follows it
	left    int64

	mu               sync.Mutex
	stopped, aborted bool
}

// past is a deadline that wakes whoever waits.
var past = time.Unix(1, 0)

// request makes the head. It returns the status that refuses the request, or 0.
// quic-go has checked names, values and pseudo-header fields.
func (s *stream) request() int {
	r, req := s.r, &s.req
	req.Method = []byte(r.Method)
	req.Authority = []byte(r.Host)
	req.Scheme = []byte("https")
	req.Path = []byte(r.RequestURI)
	req.Length = message.Length(r.ContentLength)
	if r.Method == http.MethodConnect {
		if !strings.HasPrefix(r.Proto, "HTTP/") { // RFC 9220
			req.Method, req.Upgrade = []byte("GET"), []byte(strings.ToLower(r.Proto))
			req.Length = message.UnknownLength
		} else {
			return http.StatusNotImplemented
		}
	}
	options := r.Method == http.MethodOptions && r.RequestURI == "*"
	if !message.ValidToken(req.Method) || !message.ValidAuthority(req.Authority) || !options && !message.ValidPath(req.Path) {
		return http.StatusBadRequest
	}
	n, size := 0, len(r.Method)+len(r.Host)+len(r.RequestURI)
	for name, values := range r.Header {
		n += len(values)
		for _, v := range values {
			size += len(name) + len(v) + 32 // RFC 9114 4.2.2
		}
		name = strings.ToLower(name)
		id := message.Lookup([]byte(name))
		switch id {
		case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding, message.Upgrade:
			return http.StatusBadRequest
		case message.TE:
			if len(values) != 1 || values[0] != "trailers" {
				return http.StatusBadRequest
			}
			req.Trailers = true
			continue
		case message.Host, message.ContentLength:
			continue
		case message.Expect:
			if strings.EqualFold(values[0], "100-continue") {
				req.Expect100 = req.Length != message.NoBody
				continue
			}
		case message.Cookie: // RFC 9114 4.2.1
			values = []string{strings.Join(values, "; ")}
		}
		for _, v := range values {
			req.Fields = append(req.Fields, message.Field{Name: []byte(name), Value: []byte(strings.TrimSpace(v)), ID: id})
		}
	}
	if n > s.limits.MaxHeaders || size > s.limits.MaxHeaderBytes {
		return http.StatusRequestHeaderFieldsTooLarge
	}
	slices.SortStableFunc(req.Fields, func(a, b message.Field) int { return strings.Compare(string(a.Name), string(b.Name)) })
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete, http.MethodTrace:
		if req.Length == message.UnknownLength {
			return s.peek()
		}
	}
	return 0
}

// peek looks whether a request that rarely has a body has one: quic-go does not
// tell whether the stream ended with the head.
func (s *stream) peek() int {
	p := make([]byte, 512)
	n, err := s.ReadBody(p)
	var bad *message.Error
	switch {
	case err == io.EOF && len(s.trail) == 0:
		s.req.Length = message.NoBody
	case errors.As(err, &bad):
		return max(bad.Status, http.StatusBadRequest)
	}
	s.first = p[:n]
	return 0
}

// Request returns the head.
func (s *stream) Request() *message.Request { return &s.req }

// Conn returns what is known of the connection.
func (s *stream) Conn() *message.ConnInfo { return s.info }

// ReadBody reads of the body, and asks the client for it if it waits for that.
func (s *stream) ReadBody(p []byte) (int, error) {
	if s.req.Expect100 {
		s.req.Expect100 = false
		if !s.begun {
			s.w.WriteHeader(http.StatusContinue)
		}
	}
	if err := s.deadline(); err != nil {
		return 0, err
	}
	if n := copy(p, s.first); n > 0 {
		s.first = s.first[n:]
		return n, nil
	}
	n, err := s.r.Body.Read(p)
	switch {
	case err == nil, n > 0:
		return n, nil
	case err == io.EOF:
		s.trail = fields(s.r.Trailer)
		return 0, io.EOF
	case s.isStopped():
		return 0, &message.Error{Reason: "body is not wanted"}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, &message.Error{Status: http.StatusRequestTimeout, Reason: "body took too long"}
	case s.r.Context().Err() != nil:
		return 0, &message.Error{Reason: "client has left"}
	}
	return 0, &message.Error{Status: http.StatusBadRequest, Reason: "bad body"}
}

// deadline bounds the next read, unless nobody wants it.
func (s *stream) deadline() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.aborted {
		return &message.Error{Reason: "body is not wanted"}
	}
	until := time.Time{}
	if !s.begun {
		until = time.Now().Add(s.limits.BodyIdleTimeout)
	}
	_ = s.control.SetReadDeadline(until)
	return nil
}

func (s *stream) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped || s.aborted
}

// Buffered never has anything: quic-go does not tell what has arrived.
func (s *stream) Buffered() (p []byte, all bool) { return nil, s.req.Length == message.NoBody }

// RequestTrailers are valid after the end of the body.
func (s *stream) RequestTrailers() []message.Field { return s.trail }

// fields returns a header as fields, sorted by name.
func fields(h http.Header) []message.Field {
	var out []message.Field
	for name, values := range h {
		name = strings.ToLower(name)
		for _, v := range values {
			out = append(out, message.Field{Name: []byte(name), Value: []byte(v), ID: message.Lookup([]byte(name))})
		}
	}
	slices.SortStableFunc(out, func(a, b message.Field) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return out
}

// set puts fields into the header that the next WriteHeader sends.
func (s *stream) set(fields []message.Field) {
	h := s.w.Header()
	clear(h)
	for i := range fields {
		switch fields[i].ID {
		case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding,
			message.Upgrade, message.TE, message.Host, message.ContentLength:
			continue
		}
		name := textproto.CanonicalMIMEHeaderKey(string(fields[i].Name))
		h[name] = append(h[name], string(fields[i].Value))
	}
}

// gone is why nothing can be written; nil if it can.
func (s *stream) gone() error {
	if s.Gone() {
		return &message.Error{Reason: "client has left"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		return &message.Error{Reason: "aborted"}
	}
	return nil
}

// WriteInformational sends a 1xx head.
func (s *stream) WriteInformational(r *message.Response) error {
	if err := s.gone(); err != nil {
		return err
	}
	s.set(r.Fields)
	s.w.WriteHeader(r.Status)
	clear(s.w.Header())
	return nil
}

// WriteHead begins the response.
func (s *stream) WriteHead(r *message.Response, end bool) error {
	if err := s.gone(); err != nil {
		return err
	}
	s.set(r.Fields)
	h := s.w.Header()
	// What is not there is not made up: nil keeps quic-go from it.
	for _, name := range []string{"Date", "Content-Type"} {
		if _, ok := h[name]; !ok {
			h[name] = nil
		}
	}
	status := r.Status
	if r.Upgrade {
		status = http.StatusOK
	} else if r.Length > 0 {
		h.Set("Content-Length", strconv.FormatInt(int64(r.Length), 10))
	}
	s.left = -1
	if r.Length > 0 && !end {
		s.left = int64(r.Length)
	}
	s.begun, s.ended = true, end
	s.w.WriteHeader(status)
	return nil
}

// WriteBody sends of the body, and waits for the client's windows.
func (s *stream) WriteBody(p []byte, end bool) error {
	if err := s.gone(); err != nil {
		return err
	}
	if len(p) > 0 {
		_ = s.control.SetWriteDeadline(time.Now().Add(s.limits.WriteIdleTimeout))
		if _, err := s.w.Write(p); err != nil {
			return &message.Error{Reason: "client does not take the response"}
		}
		if s.left > 0 {
			s.left -= int64(len(p))
		}
	}
	s.ended = s.ended || end
	return nil
}

// WriteTrailers ends the response.
func (s *stream) WriteTrailers(fields []message.Field) error {
	if err := s.gone(); err != nil {
		return err
	}
	// What was not sent by now must go before the trailers.
	if err := s.control.Flush(); err != nil {
		return &message.Error{Reason: "client does not take the response"}
	}
	for i := range fields {
		s.w.Header().Add(http.TrailerPrefix+textproto.CanonicalMIMEHeaderKey(string(fields[i].Name)), string(fields[i].Value))
	}
	s.ended = true
	return nil
}

// Flush sends what is in the buffer.
func (s *stream) Flush() error {
	if err := s.gone(); err != nil {
		return err
	}
	if err := s.control.Flush(); err != nil {
		return &message.Error{Reason: "client does not take the response"}
	}
	return nil
}

// StopBody ends the reading of the body.
func (s *stream) StopBody() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	_ = s.control.SetReadDeadline(past)
}

// Gone tells whether the client has reset the stream, or left.
func (s *stream) Gone() bool { return s.r.Context().Err() != nil }

// Abort resets the stream, when the handler returns.
func (s *stream) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	_ = s.control.SetReadDeadline(past)
	_ = s.control.SetWriteDeadline(past)
}

// unfinished tells whether the client must not take the response as whole.
func (s *stream) unfinished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aborted || !s.ended || s.left > 0
}

// Hijack gives the bytes of a stream whose protocol was changed.
func (s *stream) Hijack() (net.Conn, error) {
	h, ok := s.w.(http3.HTTPStreamer)
	if !ok || !s.begun || s.ended {
		return nil, errors.New("stream has no open response to hijack")
	}
	_ = s.control.SetReadDeadline(time.Time{})
	_ = s.control.SetWriteDeadline(time.Time{})
	str, err := h.HTTPStream()
	if err != nil {
		return nil, err
	}
	s.ended = true
	return &tunnel{Stream: str, info: s.info}, nil
}

// tunnel is a stream as a connection.
type tunnel struct {
	*http3.Stream
	info *message.ConnInfo
}

// CloseWrite ends what is sent.
func (t *tunnel) CloseWrite() error { return t.Stream.Close() }

// Close ends both directions.
func (t *tunnel) Close() error {
	t.CancelRead(0x100) // H3_NO_ERROR
	return t.Stream.Close()
}

// LocalAddr is that of the connection.
func (t *tunnel) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(t.info.Local) }

// RemoteAddr is that of the connection.
func (t *tunnel) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(t.info.Peer) }
