package echo

//lint:file-ignore SA1019 net/http serves no connection that was upgraded to h2c.

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
)

const (
	maxBodyShown = 64 << 10
	maxDelay     = time.Minute
	maxSize      = 1 << 30
)

// portKey is the context key of the Port a request came in by.
type portKey struct{}

// newHTTP makes the one HTTP server of all ports.
func (s *Server) newHTTP() {
	s.inbound = newInbound()
	s.h2 = &http2.Server{IdleTimeout: 5 * time.Minute}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if c, ok := c.(*conn); ok {
				ctx = context.WithValue(ctx, portKey{}, c.port)
			}
			return ctx
		},
	}
	// So that Shutdown tells HTTP/2 clients to go. It fails only on a bad
	// TLS configuration, and there is none.
	_ = http2.ConfigureServer(s.http, s.h2)
}

// serveHTTP2 serves one HTTP/2 connection. After an upgrade, r is the request
// that asked for it and settings are what its header HTTP2-Settings held.
func (s *Server) serveHTTP2(c net.Conn, r *http.Request, settings []byte) {
	s.h2wg.Add(1)
	defer s.h2wg.Done()
	ctx := context.Background()
	if r != nil {
		ctx = r.Context()
	} else if c, ok := c.(*conn); ok {
		ctx = context.WithValue(ctx, portKey{}, c.port)
		ctx = context.WithValue(ctx, http.LocalAddrContextKey, c.LocalAddr())
	}
	s.h2.ServeConn(c, &http2.ServeConnOpts{
		Context: ctx, BaseConfig: s.http, Handler: s.http.Handler,
		UpgradeRequest: r, Settings: settings,
	})
}

// serveHTTP answers one request of any HTTP version.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		s.grpc().ServeHTTP(w, r)
		return
	}
	h := w.Header()
	h.Set("Fairway-Pod", s.o.Namespace+"/"+s.o.Pod)
	h.Set("Fairway-Node", s.o.Node)
	switch {
	case r.ProtoMajor == 1 && hasToken(r.Header, "Upgrade", "websocket"):
		s.serveWebSocket(w, r)
		return
	case r.ProtoMajor == 1 && hasToken(r.Header, "Upgrade", "h2c") && r.Header.Get("HTTP2-Settings") != "":
		s.upgrade(w, r)
		return
	}

	c, ok := parseControls(w, r)
	if !ok {
		return
	}
	if c.delay > 0 {
		select {
		case <-time.After(c.delay):
		case <-r.Context().Done():
			return
		}
	}
	text := strings.Contains(r.Header.Get("Accept"), "text/plain")
	contentType := "application/json"
	if text {
		contentType = "text/plain; charset=utf-8"
	}
	switch {
	case c.echo:
		s.echoBody(w, r, c.status)
	case c.size >= 0:
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Length", strconv.FormatInt(c.size, 10))
		w.WriteHeader(c.status)
		if r.Method != http.MethodHead {
			_, _ = io.CopyN(w, filler{}, c.size)
		}
	case c.headers:
		h.Set("Content-Type", contentType)
		w.WriteHeader(c.status)
		_, _ = w.Write(headersOnly(r.Header, text))
	default:
		rep := s.httpReply(r)
		h.Set("Content-Type", contentType)
		w.WriteHeader(c.status)
		if text {
			_, _ = w.Write(rep.text())
		} else {
			_, _ = w.Write(rep.json())
		}
	}
}

// controls are what path and query of a request ask for.
type controls struct {
	status  int
	delay   time.Duration
	size    int64 // -1: no filler
	headers bool
	echo    bool
}

// parseControls reads them; if one is wrong it answers 400 and returns false.
func parseControls(w http.ResponseWriter, r *http.Request) (controls, bool) {
	c := controls{status: http.StatusOK, size: -1}
	q := r.URL.Query()
	status, delay, size := q.Get("status"), q.Get("delay"), q.Get("size")
	switch first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); first {
	case "status":
		status = rest
	case "delay":
		delay = rest
	case "headers":
		c.headers = rest == ""
	case "echo":
		c.echo = rest == ""
	}
	var err error
	bad := func(what string) (controls, bool) {
		http.Error(w, what, http.StatusBadRequest)
		return c, false
	}
	if status != "" {
		// Codes below 200 do not end a request.
		if c.status, err = strconv.Atoi(status); err != nil || c.status < 200 || c.status > 599 {
			return bad("status: want a number from 200 to 599")
		}
	}
	if delay != "" {
		if c.delay, err = time.ParseDuration(delay); err != nil || c.delay < 0 || c.delay > maxDelay {
			return bad("delay: want a duration such as 100ms, at most " + maxDelay.String())
		}
	}
	if size != "" {
		if c.size, err = strconv.ParseInt(size, 10, 64); err != nil || c.size < 0 || c.size > maxSize {
			return bad("size: want a number of bytes from 0 to " + strconv.Itoa(maxSize))
		}
	}
	return c, true
}

// httpReply tells what one HTTP request looked like.
func (s *Server) httpReply(r *http.Request) Reply {
	port, _ := r.Context().Value(portKey{}).(Port)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	rep := s.reply(port, r.Proto, local, nil)
	rep.RemoteAddr = r.RemoteAddr
	rep.Method, rep.Host, rep.Path = r.Method, r.Host, r.URL.Path
	rep.Query, rep.Headers = r.URL.Query(), r.Header
	body, _ := io.ReadAll(io.LimitReader(r.Body, maxBodyShown))
	rep.setBody(body)
	return rep
}

// echoBody sends the request body back while it comes in.
func (s *Server) echoBody(w http.ResponseWriter, r *http.Request, status int) {
	if r.ProtoMajor == 1 {
		// HTTP/1 servers otherwise read the whole body before they answer.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		ct = "application/octet-stream"
	}
	w.Header().Set("Content-Type", ct)
	w.WriteHeader(status)
	rc := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return
			}
			_ = rc.Flush()
		}
		if err != nil {
			return
		}
	}
}

// headersOnly shows the request headers.
func headersOnly(h http.Header, text bool) []byte {
	if text {
		var b strings.Builder
		writeHeaders(&b, "", h)
		return []byte(b.String())
	}
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil { // no header can fail
		return nil
	}
	return append(b, '\n')
}

// upgrade turns an HTTP/1.1 connection into HTTP/2 (RFC 7540 section 3.2).
// Few clients still ask for it; some proxies do.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	settings, err := base64.RawURLEncoding.DecodeString(r.Header.Get("HTTP2-Settings"))
	if err != nil || len(settings)%6 != 0 {
		http.Error(w, "HTTP2-Settings: not base64url of settings", http.StatusBadRequest)
		return
	}
	// The first request must be whole before HTTP/2 begins.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "upgrade: body too large", http.StatusRequestEntityTooLarge)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"); err != nil {
		return
	}
	// The request is answered as HTTP/2, and must not ask to upgrade again.
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	r.Header.Del("Upgrade")
	r.Header.Del("Connection")
	s.serveHTTP2(&buffered{nc, rw.Reader}, r, settings)
}

// buffered is a hijacked connection of which some bytes were read already.
type buffered struct {
	net.Conn
	r io.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// serveWebSocket sends every message back until one side closes.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	// Any origin may connect: there is nothing here to protect.
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	c.SetReadLimit(16 << 20)
	stopped := context.AfterFunc(s.stop, func() { _ = c.Close(websocket.StatusGoingAway, "pod stops") })
	defer stopped()
	for {
		typ, msg, err := c.Read(context.Background())
		if err != nil {
			return
		}
		if err := c.Write(context.Background(), typ, msg); err != nil {
			return
		}
	}
}

// hasToken reports whether a comma-separated header holds a token, in any case.
func hasToken(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// filler is an endless stream of one byte.
type filler struct{}

func (filler) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}
