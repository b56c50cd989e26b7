package http1

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// backend is an endpoint that does with each connection what a script says.
func backend(t *testing.T, script func(p *peer)) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		script(&peer{t, conn, bufio.NewReader(conn)})
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = ln.Close()
		<-done
	})
	return conn
}

// request reads one request, by net/http.
func (p *peer) request() (*http.Request, string) {
	r, err := http.ReadRequest(p.r)
	if err != nil {
		p.t.Errorf("request: %v", err)
		return &http.Request{}, ""
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Errorf("body of the request: %v", err)
	}
	return r, string(body)
}

func get(path string) *message.Request {
	return &message.Request{Method: []byte("GET"), Authority: []byte("a"), Path: []byte(path)}
}

func post(length message.Length) *message.Request {
	return &message.Request{Method: []byte("POST"), Authority: []byte("a"), Path: []byte("/"), Length: length}
}

// exchange sends a request without a body and reads the whole response.
func exchange(t *testing.T, c *Client, r *message.Request) (*message.Response, string, error) {
	t.Helper()
	if err := c.Send(r, true); err != nil {
		t.Fatal(err)
	}
	var got message.Response
	if err := c.Receive(&got); err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(reader{c.ReadBody})
	return &got, string(body), err
}

// TestExchanges has one call on a connection each, and whether another may follow.
func TestExchanges(t *testing.T) {
	head := get("/")
	head.Method = []byte("HEAD")
	for _, c := range []struct {
		name, answer string
		request      *message.Request
		status       int
		body         string
		err          string
		reusable     bool
	}{
		{name: "length", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", reusable: true},
		{name: "chunks", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", status: 200, body: "hello", reusable: true},
		{name: "nothing", answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, reusable: true},
		{name: "204", answer: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, reusable: true},
		{name: "304", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304, reusable: true},
		{name: "HEAD", request: head, answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", status: 200, reusable: true},
		{name: "HEAD with chunks", request: head, answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", status: 200, reusable: true},
		{name: "100 first", answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", reusable: true},
		{name: "close", answer: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello"},
		{name: "HTTP/1.0", answer: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello"},
		{name: "HTTP/1.0 that stays", answer: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", reusable: true},
		{name: "until the end", answer: "HTTP/1.1 200 OK\r\n\r\nhello", status: 200, body: "hello"},

		{name: "more than the length", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n", status: 200, body: "hello"},
		{name: "a body to HEAD", request: head, answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200},
		{name: "a body after 304", answer: "HTTP/1.1 304 Not Modified\r\n\r\nhello", status: 304},
		{name: "a body after 204", answer: "HTTP/1.1 204 No Content\r\n\r\nhello", status: 204},
		{name: "a body cut short", answer: "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", status: 200, err: "body cut short"},
		{name: "chunks cut short", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", status: 200, err: "body cut short"},
		{name: "a bad chunk", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", status: 200, err: "bare LF"},
		{name: "both lengths", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", err: "Transfer-Encoding with Content-Length"},
		{name: "no HTTP", answer: "220 mail ready\r\n", err: "bad HTTP version"},
		{name: "a head cut short", answer: "HTTP/1.1 200 OK\r\nContent-Le", err: "head cut short"},
		{name: "an endless head", answer: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100<<10), err: "head too large"},
		{name: "101 that nobody asked for", answer: "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", err: "upgrade that was not asked for"},
		{name: "the end", answer: "", err: "connection closed before the response"},
	} {
		t.Run(c.name, func(t *testing.T) {
			release := make(chan bool)
			conn := backend(t, func(p *peer) {
				p.request()
				_, _ = io.WriteString(p, c.answer)
				if !c.reusable {
					_ = p.Conn.(*net.TCPConn).CloseWrite()
				}
				<-release
			})
			defer close(release)
			client := NewClient(conn)
			if c.request == nil {
				c.request = get("/")
			}
			r, body, err := exchange(t, client, c.request)
			if c.err != "" {
				var bad *message.Error
				if err == nil || !strings.Contains(err.Error(), c.err) || !errors.As(err, &bad) || bad.Status != 502 {
					t.Errorf("error %v, want %s", err, c.err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if r != nil && r.Status != c.status {
				t.Errorf("status %d", r.Status)
			}
			if c.err == "" && body != c.body {
				t.Errorf("body %q", body)
			}
			if err != nil && client.Unsent() {
				t.Error("the request is said not to have been taken")
			}
			client.Close()
			if client.Reusable() != c.reusable {
				t.Errorf("reusable: %v", client.Reusable())
			}
			if client.in.buf != nil || client.out.buf != nil {
				t.Error("it holds a buffer")
			}
		})
	}
}

// TestRequestFraming shows what is on the wire.
func TestRequestFraming(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(c *Client) error
		want string
	}{
		{"GET", func(c *Client) error { return c.Send(get("/a?b"), true) }, "GET /a?b HTTP/1.1\r\nhost: a\r\n\r\n"},
		{"POST without a body", func(c *Client) error { return c.Send(post(0), true) }, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"},
		{"a length", func(c *Client) error {
			return errors.Join(c.Send(post(4), false), c.WriteBody([]byte("ab"), false), c.WriteBody([]byte("cd"), true))
		}, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nabcd"},
		{"unknown, but whole at once", func(c *Client) error {
			return errors.Join(c.Send(post(-1), false), c.WriteBody([]byte("abcd"), true))
		}, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nabcd"},
		{"chunks and trailers", func(c *Client) error {
			return errors.Join(c.Send(post(-1), false), c.WriteBody([]byte("ab"), false), c.WriteTrailers([]message.Field{field("t", "1")}))
		}, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nt: 1\r\n\r\n"},
		{"te", func(c *Client) error {
			r := get("/")
			r.Trailers = true
			r.Fields = []message.Field{field("x", "y"), field("host", "b"), field("te", "z"), field("expect", "100-continue")}
			return c.Send(r, true)
		}, "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\nconnection: te\r\nte: trailers\r\n\r\n"},
		{"an upgrade", func(c *Client) error {
			r := get("/")
			r.Upgrade = []byte("websocket")
			return c.Send(r, true)
		}, "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"},
		{"an upgrade of HTTP/2", func(c *Client) error {
			r := get("/")
			r.Method, r.Upgrade = []byte("CONNECT"), []byte("websocket")
			return c.Send(r, true)
		}, "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make(chan string, 1)
			conn := backend(t, func(p *peer) {
				b := make([]byte, len(c.want))
				n, _ := io.ReadFull(p.r, b)
				got <- string(b[:n])
			})
			client := NewClient(conn)
			if err := errors.Join(c.send(client), client.Flush()); err != nil {
				t.Fatal(err)
			}
			if g := <-got; g != c.want {
				t.Errorf("got  %q\nwant %q", g, c.want)
			}
		})
	}
}

// TestRequestsRefused has heads that would be another request in HTTP/1.1. They
// may come from HTTP/2, or from filters.
func TestRequestsRefused(t *testing.T) {
	conn := backend(t, func(p *peer) { _, _ = p.r.ReadByte() })
	for _, c := range []struct {
		name   string
		change func(r *message.Request)
	}{
		{"CRLF in the path", func(r *message.Request) { r.Path = []byte("/ HTTP/1.1\r\nx: y\r\n") }},
		{"a space in the path", func(r *message.Request) { r.Path = []byte("/a b") }},
		{"no path", func(r *message.Request) { r.Path = nil }},
		{"a space in the method", func(r *message.Request) { r.Method = []byte("GET /a HTTP/1.1\r\n") }},
		{"no method", func(r *message.Request) { r.Method = nil }},
		{"CRLF in the host", func(r *message.Request) { r.Authority = []byte("a\r\nx: y") }},
		{"CRLF in the protocol", func(r *message.Request) { r.Upgrade = []byte("a\r\nx: y") }},
		{"CRLF in a value", func(r *message.Request) { r.Fields = []message.Field{field("x", "y\r\nz: 1")} }},
		{"LF in a value", func(r *message.Request) { r.Fields = []message.Field{field("x", "12345678\n")} }},
		{"a colon in a name", func(r *message.Request) { r.Fields = []message.Field{field("x:y", "z")} }},
		{"no name", func(r *message.Request) { r.Fields = []message.Field{field("", "z")} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := NewClient(conn)
			r := get("/")
			c.change(r)
			if err := client.Send(r, true); err == nil {
				t.Error("sent")
			}
			if client.w.sent > 0 || client.out.buf != nil {
				t.Error("something was sent")
			}
			if client.Close(); !client.Reusable() || !client.Unsent() {
				t.Error("the connection is lost")
			}
		})
	}
}

func TestReuse(t *testing.T) {
	conn := backend(t, func(p *peer) {
		for {
			r, err := http.ReadRequest(p.r)
			if err != nil {
				return
			}
			p.say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(r.URL.Path), r.URL.Path)
		}
	})
	client := NewClient(conn)
	for _, path := range []string{"/1", "/22", "/333"} {
		_, body, err := exchange(t, client, get(path))
		if err != nil || body != path {
			t.Fatalf("%s: %q, %v", path, body, err)
		}
		if client.Close(); !client.Reusable() {
			t.Fatal("not reusable")
		}
	}
	// A body that was seen, not read, is read.
	if err := client.Send(get("/seen"), true); err != nil {
		t.Fatal(err)
	}
	var r message.Response
	if err := client.Receive(&r); err != nil {
		t.Fatal(err)
	}
	for {
		if p, all := client.Buffered(); all {
			if string(p) != "/seen" {
				t.Errorf("buffered %q", p)
			}
			break
		}
		if err := client.in.fill(); err != nil {
			t.Fatal(err)
		}
	}
	if client.Close(); !client.Reusable() {
		t.Error("not reusable")
	}
}

func TestInformational(t *testing.T) {
	conn := backend(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n")
		_, _ = p.r.ReadByte()
	})
	client := NewClient(conn)
	if err := client.Send(get("/"), true); err != nil {
		t.Fatal(err)
	}
	var r message.Response
	if err := client.Receive(&r); err != nil || r.Status != 103 || len(r.Fields) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := client.Receive(&r); err != nil || r.Status != 200 {
		t.Fatalf("%+v, %v", r, err)
	}
	body, err := io.ReadAll(reader{client.ReadBody})
	if string(body) != "ok" || err != nil || len(client.Trailers()) != 1 {
		t.Errorf("%q, %v, %v", body, client.Trailers(), err)
	}
}

func TestClientUpgrade(t *testing.T) {
	conn := backend(t, func(p *peer) {
		r, _ := p.request()
		if r.Header.Get("Upgrade") != "websocket" {
			t.Errorf("%v", r.Header)
		}
		p.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\nearly ")
		_, _ = io.Copy(p, p.r)
	})
	client := NewClient(conn)
	r := get("/")
	r.Upgrade = []byte("websocket")
	if err := client.Send(r, true); err != nil {
		t.Fatal(err)
	}
	var got message.Response
	if err := client.Receive(&got); err != nil || !got.Upgrade || len(got.Fields) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	raw, err := client.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	if client.Close(); client.Reusable() {
		t.Error("reusable")
	}
	_, _ = io.WriteString(raw, "late")
	b := make([]byte, len("early late"))
	if _, err := io.ReadFull(raw, b); err != nil || string(b) != "early late" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestEarlyResponse has an endpoint that answers before it has the body.
func TestEarlyResponse(t *testing.T) {
	release := make(chan bool)
	conn := backend(t, func(p *peer) {
		_, _ = http.ReadRequest(p.r)
		p.say("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
		<-release
	})
	defer close(release)
	client := NewClient(conn)
	if err := client.Send(post(message.UnknownLength), false); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error)
	go func() {
		b := make([]byte, 1<<20)
		for {
			if err := client.WriteBody(b, false); err != nil {
				sent <- err
				return
			}
		}
	}()
	var r message.Response
	if err := client.Receive(&r); err != nil || r.Status != 413 {
		t.Fatalf("%+v, %v", r, err)
	}
	body, err := io.ReadAll(reader{client.ReadBody})
	if string(body) != "no" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	client.Abort()
	if err := <-sent; err == nil {
		t.Error("sending goes on")
	}
	if client.Close(); client.Reusable() {
		t.Error("reusable")
	}
}

func TestDeadline(t *testing.T) {
	release := make(chan bool)
	conn := backend(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		p.request()
		<-release
	})
	defer close(release)
	client := NewClient(conn)
	// A deadline that has passed between two calls does no harm.
	client.SetDeadline(time.Now().Add(patience))
	if _, body, err := exchange(t, client, get("/")); body != "hello" || err != nil {
		t.Fatalf("%q, %v", body, err)
	}
	client.Close()
	client.SetDeadline(time.Now().Add(50 * time.Millisecond))
	client.SetDeadline(time.Now().Add(patience))
	time.Sleep(100 * time.Millisecond)
	client.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if _, _, err := exchange(t, client, get("/")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if client.Unsent() {
		t.Error("said not to have been taken")
	}
	if client.Close(); client.Reusable() {
		t.Error("reusable")
	}
}

// TestUnsent has an endpoint that closed an idle connection: the request that meets
// this may be sent again, whatever it is.
func TestUnsent(t *testing.T) {
	closed := make(chan bool)
	conn := backend(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		_ = p.Close()
		close(closed)
	})
	client := NewClient(conn)
	if _, body, err := exchange(t, client, get("/")); body != "hello" || err != nil {
		t.Fatalf("%q, %v", body, err)
	}
	client.Close()
	<-closed
	if _, _, err := exchange(t, client, post(0)); err == nil {
		t.Fatal("answered")
	} else if !client.Unsent() {
		t.Errorf("said to have been taken: %v", err)
	}
	client.Close()
	if client.Reusable() {
		t.Error("reusable")
	}
}

// TestTaken has an endpoint that reads a request and dies: it may have acted.
func TestTaken(t *testing.T) {
	conn := backend(t, func(p *peer) { p.request() })
	client := NewClient(conn)
	if _, _, err := exchange(t, client, post(0)); err == nil || client.Unsent() {
		t.Errorf("error %v, unsent %v", err, client.Unsent())
	}
}

// TestGreatRequestHead sends a head that does not fit the socket's buffers, to an
// endpoint that takes its time.
func TestGreatRequestHead(t *testing.T) {
	great := strings.Repeat("x", 8<<20)
	start := make(chan bool)
	conn := backend(t, func(p *peer) {
		<-start
		r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(
			io.LimitReader(p.r, 100), strings.NewReader("\r\n\r\n"))))
		if err != nil || r.Header.Get("X") == "" {
			t.Errorf("%v, %v", r, err)
		}
		// The rest, and the empty line.
		if n, err := io.CopyN(io.Discard, p.r, int64(len("GET / HTTP/1.1\r\nhost: a\r\nx: \r\n\r\n")+len(great)-100)); err != nil {
			t.Errorf("the rest: %d, %v", n, err)
		}
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	})
	client := NewClient(conn)
	r := get("/")
	r.Fields = []message.Field{field("x", great)}
	go func() {
		time.Sleep(50 * time.Millisecond)
		close(start)
	}()
	if _, body, err := exchange(t, client, r); err != nil || body != "hello" {
		t.Errorf("%q, %v", body, err)
	}
	if client.Close(); !client.Reusable() {
		t.Error("not reusable")
	}
}
