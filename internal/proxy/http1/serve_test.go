package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// site is a server on loopback.
type site struct {
	t       *testing.T
	addr    string
	limits  Limits
	handler message.Handler
	closing atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
	// results are what Serve returned, as text, in order.
	results chan error
}

// serve starts a server; change may set its limits before it starts.
func serve(t *testing.T, h message.Handler, change ...func(*site)) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, addr: ln.Addr().String(), limits: NewLimits(&model.ListenerPolicy{}), handler: h, results: make(chan error, 1000)}
	for _, f := range change {
		f(s)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			all.Go(func() {
				info := &message.ConnInfo{Peer: conn.RemoteAddr().(*net.TCPAddr).AddrPort(), Closing: s.closing.Load}
				s.results <- Serve(conn, info, s.limits, s.handler)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		all.Wait()
	})
	return s
}

// result waits for a Serve to return.
func (s *site) result() error {
	s.t.Helper()
	select {
	case err := <-s.results:
		return err
	case <-time.After(patience):
		s.t.Fatal("Serve does not return")
		return nil
	}
}

// peer is a client that speaks bytes.
type peer struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (s *site) dial() *peer {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &peer{s.t, conn, bufio.NewReader(conn)}
}

// say sends. Any goroutine of a test may call it.
func (p *peer) say(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p, format, args...); err != nil {
		p.t.Error(err)
	}
}

// hear reads a response to a request of that method, by net/http.
func (p *peer) hear(method string) (*http.Response, string) {
	p.t.Helper()
	r, err := http.ReadResponse(p.r, &http.Request{Method: method})
	if err != nil {
		p.t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatalf("body: %v after %q", err, body)
	}
	return r, string(body)
}

// expect reads a response and compares "status body".
func (p *peer) expect(method, want string) *http.Response {
	p.t.Helper()
	r, body := p.hear(method)
	if got := strings.TrimSpace(fmt.Sprintf("%d %s", r.StatusCode, body)); got != want {
		p.t.Errorf("got  %q\nwant %q", got, want)
	}
	return r
}

// ended waits for the end of the connection, and fails on anything else.
func (p *peer) ended() {
	p.t.Helper()
	if b, err := io.ReadAll(p.r); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		p.t.Errorf("instead of the end: %q, %v", b, err)
	}
}

func field(name, value string) message.Field {
	return message.Field{Name: []byte(name), Value: []byte(value), ID: message.Lookup([]byte(name))}
}

// answer sends a whole response.
func answer(s message.Stream, status int, body string) {
	_ = s.WriteHead(&message.Response{Status: status, Length: message.Length(len(body))}, body == "")
	if body != "" {
		_ = s.WriteBody([]byte(body), true)
	}
}

// echo answers with what was asked: method, path, fields, body, trailers.
func echo(s message.Stream) {
	r := s.Request()
	text := fmt.Sprintf("%s %s %s", r.Method, r.Authority, r.Path)
	for _, f := range r.Fields {
		text += fmt.Sprintf(" %s=%s", f.Name, f.Value)
	}
	body, err := io.ReadAll(reader{s.ReadBody})
	if err != nil {
		var bad *message.Error
		if !errors.As(err, &bad) || bad.Status == 0 {
			s.Abort()
			return
		}
		answer(s, bad.Status, bad.Reason)
		return
	}
	text += " [" + string(body) + "]"
	for _, f := range s.RequestTrailers() {
		text += fmt.Sprintf(" %s=%s", f.Name, f.Value)
	}
	answer(s, 200, text)
}

// reader is a ReadBody as an io.Reader.
type reader struct {
	read func(p []byte) (int, error)
}

func (r reader) Read(p []byte) (int, error) { return r.read(p) }

func TestKeepAlive(t *testing.T) {
	s := serve(t, echo)
	p := s.dial()
	for i := range 3 {
		p.say("GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		r := p.expect("GET", fmt.Sprintf("200 GET a /%d []", i))
		if r.Close || r.Header.Get("Date") == "" {
			t.Errorf("close %v, date %q", r.Close, r.Header.Get("Date"))
		}
	}
	p.say("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if r := p.expect("GET", "200 GET a /last []"); !r.Close {
		t.Error("the answer does not say that it is the last")
	}
	p.ended()
	if err := s.result(); err != nil {
		t.Error(err)
	}
}

func TestPipelining(t *testing.T) {
	s := serve(t, echo)
	p := s.dial()
	p.say("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" +
		"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" +
		"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nworld\r\n0\r\nT: 1\r\n\r\n" +
		"\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n")
	p.expect("GET", "200 GET a /1 []")
	p.expect("POST", "200 POST a /2 [hello]")
	p.expect("POST", "200 POST a /3 [world] t=1")
	p.expect("GET", "200 GET a /4 []")
}

// TestPieces sends a request and a pipelined one in pieces of every size.
func TestPieces(t *testing.T) {
	text := "POST /1 HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 50) + "\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n7\r\n, world\r\n0\r\nT: 1\r\n\r\n" +
		"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
	s := serve(t, echo)
	for _, size := range []int{1, 2, 3, 5, 17, 64, 100} {
		p := s.dial()
		_ = p.Conn.(*net.TCPConn).SetNoDelay(true)
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			p.say("%s", rest[:n])
			rest = rest[n:]
		}
		p.expect("POST", "200 POST a /1 x="+strings.Repeat("x", 50)+" [hello, world] t=1")
		p.expect("POST", "200 POST a /2 [abc]")
		_ = p.Close()
	}
}

// TestGreatHead has a head and trailers that need greater buffers, and a body that
// must not run over them.
func TestGreatHead(t *testing.T) {
	s := serve(t, echo)
	p := s.dial()
	great, body := strings.Repeat("v", 30<<10), strings.Repeat("b", 100<<10)
	for range 2 {
		p.say("POST / HTTP/1.1\r\nHost: a\r\nX: %s\r\nTransfer-Encoding: chunked\r\n\r\n", great)
		for i := 0; i < len(body); i += 1000 {
			n := min(1000, len(body)-i)
			p.say("%x\r\n%s\r\n", n, body[i:i+n])
		}
		p.say("0\r\nT: %s\r\n\r\n", great)
		p.expect("POST", "200 POST a / x="+great+" ["+body+"] t="+great)
	}
}

func TestHTTP10(t *testing.T) {
	t.Run("closes", func(t *testing.T) {
		p := serve(t, echo).dial()
		p.say("GET / HTTP/1.0\r\n\r\n")
		p.expect("GET", "200 GET  / []")
		p.ended()
	})
	t.Run("stays if asked", func(t *testing.T) {
		p := serve(t, echo).dial()
		for range 2 {
			p.say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
			if r := p.expect("GET", "200 GET  / []"); r.Header.Get("Connection") != "keep-alive" {
				t.Errorf("connection: %q", r.Header.Get("Connection"))
			}
		}
	})
	t.Run("a body of unknown length ends with the connection", func(t *testing.T) {
		p := serve(t, func(s message.Stream) {
			_ = s.WriteInformational(&message.Response{Status: 103})
			_ = s.WriteHead(&message.Response{Status: 200, Length: message.UnknownLength}, false)
			_ = s.WriteBody([]byte("one "), false)
			_ = s.WriteBody([]byte("two"), false)
			_ = s.WriteTrailers([]message.Field{field("t", "1")})
		}).dial()
		p.say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
		all, err := io.ReadAll(p.r)
		if err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(string(all), "\r\nconnection: close\r\n\r\none two") {
			t.Errorf("%q, %v", all, err)
		}
	})
}

func TestHead(t *testing.T) {
	p := serve(t, func(s message.Stream) {
		switch string(s.Request().Path) {
		case "/backend": // as a backend answers HEAD
			_ = s.WriteHead(&message.Response{Status: 200, Length: 7}, true)
		case "/page": // as the engine answers, whatever the method
			answer(s, 404, "nothing")
		case "/unknown":
			_ = s.WriteHead(&message.Response{Status: 200, Length: message.UnknownLength}, false)
			_ = s.WriteBody([]byte("abc"), false)
			_ = s.WriteTrailers(nil)
		case "/304":
			_ = s.WriteHead(&message.Response{Status: 304, Length: 7}, true)
		case "/204":
			_ = s.WriteHead(&message.Response{Status: 204}, true)
		}
	}).dial()
	for _, c := range []struct{ method, path, want, length string }{
		{"HEAD", "/backend", "200", "7"},
		{"HEAD", "/page", "404", "7"},
		{"HEAD", "/unknown", "200", ""},
		{"GET", "/304", "304", "7"},
		{"GET", "/204", "204", ""},
		{"GET", "/page", "404 nothing", "7"},
	} {
		p.say("%s %s HTTP/1.1\r\nHost: a\r\n\r\n", c.method, c.path)
		r := p.expect(c.method, c.want)
		if got := r.Header.Get("Content-Length"); got != c.length || len(r.TransferEncoding) > 0 {
			t.Errorf("%s %s: content-length %q, want %q; %v", c.method, c.path, got, c.length, r.TransferEncoding)
		}
	}
}

// TestResponseFraming shows what is on the wire.
func TestResponseFraming(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(s message.Stream) error
		want  string
		err   bool
		abort bool
	}{
		{name: "nothing", write: func(s message.Stream) error {
			return s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("date", "d")}}, true)
		}, want: "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 0\r\n\r\n"},
		{name: "length", write: func(s message.Stream) error {
			_ = s.WriteHead(&message.Response{Status: 999, Fields: []message.Field{field("date", "d"), field("x", "y")}, Length: 4}, false)
			_ = s.WriteBody([]byte("ab"), false)
			return s.WriteBody([]byte("cd"), false)
		}, want: "HTTP/1.1 999 \r\ndate: d\r\nx: y\r\ncontent-length: 4\r\n\r\nabcd"},
		{name: "unknown, but whole at once", write: func(s message.Stream) error {
			_ = s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("date", "d")}, Length: -1}, false)
			return s.WriteBody([]byte("abcd"), true)
		}, want: "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 4\r\n\r\nabcd"},
		{name: "chunks", write: func(s message.Stream) error {
			_ = s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("date", "d")}, Length: -1}, false)
			_ = s.WriteBody(nil, false)
			_ = s.WriteBody([]byte("0123456789abcdef"), false)
			_ = s.WriteBody(nil, false)
			return s.WriteBody([]byte("g"), true)
		}, want: "HTTP/1.1 200 OK\r\ndate: d\r\ntransfer-encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n1\r\ng\r\n0\r\n\r\n"},
		{name: "chunks with trailers", write: func(s message.Stream) error {
			_ = s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("date", "d")}, Length: -1}, false)
			return s.WriteTrailers([]message.Field{field("t", "1"), field("content-length", "5")})
		}, want: "HTTP/1.1 200 OK\r\ndate: d\r\ntransfer-encoding: chunked\r\n\r\n0\r\nt: 1\r\n\r\n"},
		{name: "a flushed head", write: func(s message.Stream) error {
			_ = s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("date", "d")}, Length: -1}, false)
			_ = s.Flush()
			return s.WriteBody(nil, true)
		}, want: "HTTP/1.1 200 OK\r\ndate: d\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"},
		{name: "fields of the connection are not passed on", write: func(s message.Stream) error {
			fields := []message.Field{field("date", "d")}
			for _, name := range []string{"connection", "content-length", "transfer-encoding", "keep-alive", "upgrade", "proxy-connection", "te"} {
				fields = append(fields, field(name, "5"), message.Field{Name: []byte(name), Value: []byte("5")})
			}
			return s.WriteHead(&message.Response{Status: 200, Fields: fields}, true)
		}, want: "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 0\r\n\r\n"},
		{name: "early hints", write: func(s message.Stream) error {
			_ = s.WriteInformational(&message.Response{Status: 103, Fields: []message.Field{field("link", "l")}})
			return s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("date", "d")}}, true)
		}, want: "HTTP/1.1 103 Early Hints\r\nlink: l\r\n\r\nHTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 0\r\n\r\n"},

		{name: "CRLF in a value", write: func(s message.Stream) error {
			return s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("x", "a\r\nset-cookie: b")}}, true)
		}, err: true, abort: true},
		{name: "NUL in a value", write: func(s message.Stream) error {
			return s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("x", "a\x00")}}, true)
		}, err: true, abort: true},
		{name: "a colon in a name", write: func(s message.Stream) error {
			return s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("x: y\r\nz", "a")}}, true)
		}, err: true, abort: true},
		{name: "too much", write: func(s message.Stream) error {
			_ = s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("date", "d")}, Length: 2}, false)
			return s.WriteBody([]byte("abc"), true)
		}, err: true, abort: true},
		{name: "too little", write: func(s message.Stream) error {
			_ = s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("date", "d")}, Length: 4}, false)
			return s.WriteBody([]byte("abc"), true)
		}, err: true, abort: true},
		{name: "no end", write: func(s message.Stream) error {
			_ = s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("date", "d")}, Length: -1}, false)
			return s.WriteBody([]byte("abc"), false)
		}, abort: true},
		{name: "nothing at all", write: func(message.Stream) error { return nil }, abort: true},
		{name: "an upgrade that nobody asked for", write: func(s message.Stream) error {
			return s.WriteHead(&message.Response{Status: 101, Upgrade: true}, true)
		}, err: true, abort: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			s := serve(t, func(s message.Stream) { err = c.write(s) })
			p := s.dial()
			p.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if c.abort {
				if b, err := io.ReadAll(p.r); err == nil {
					t.Errorf("the connection ended in order after %q", b)
				}
			} else {
				got := make([]byte, len(c.want))
				if n, err := io.ReadFull(p.r, got); err != nil || string(got) != c.want {
					t.Errorf("%v\ngot  %q\nwant %q", err, got[:n], c.want)
				}
				_ = p.Close()
			}
			if result := s.result(); (result != nil) != c.abort || (err != nil) != c.err {
				t.Errorf("Serve: %v; write: %v", result, err)
			}
		})
	}
}

func TestPreface(t *testing.T) {
	s := serve(t, echo)
	p := s.dial()
	const start = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes"
	p.say(start)
	var handed *PrefaceError
	if err := s.result(); !errors.As(err, &handed) {
		t.Fatalf("Serve: %v", err)
	}
	got := make([]byte, len(start))
	if _, err := io.ReadFull(handed.Conn, got); err != nil || string(got) != start {
		t.Errorf("handed over: %q, %v", got, err)
	}
	if _, err := io.WriteString(handed.Conn, "settings"); err != nil {
		t.Error(err)
	}
	_ = handed.Conn.Close()
	if got, err := io.ReadAll(p.r); string(got) != "settings" {
		t.Errorf("%q, %v", got, err)
	}

	p = s.dial()
	p.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	p.expect("GET", "200 GET a / []")
	p.say(start)
	p.expect("GET", "505 HTTP version not supported")
}

func TestRemoteAddress(t *testing.T) {
	var peer netip.AddrPort
	p := serve(t, func(s message.Stream) {
		peer = s.Conn().Peer
		answer(s, 200, s.Conn().Protocol)
	}).dial()
	p.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	p.expect("GET", "200 HTTP/1.1")
	if peer.String() != p.LocalAddr().String() {
		t.Errorf("%s, want %s", peer, p.LocalAddr())
	}
}
