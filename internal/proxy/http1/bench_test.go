package http1

import (
	"io"
	"net"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// browser is a request as a browser sends it.
const browser = "GET /assets/app.js?v=3 HTTP/1.1\r\nHost: shop.example.com\r\nConnection: keep-alive\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-GB,en;q=0.9\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n"

const fromBackend = "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 20:00:00 GMT\r\nContent-Type: text/plain\r\n" +
	"Content-Length: 13\r\nLast-Modified: Mon, 23 Nov 2026 19:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"5d-1\"\r\nAccept-Ranges: bytes\r\n\r\n"

// startChain returns a client's connection to a proxy, which has one connection to
// a backend that answers every request at once.
func startChain(t testing.TB) (front net.Conn, stop func()) {
	t.Helper()
	client, proxy := socketPair(t)
	upstream, origin := socketPair(t)
	answer := []byte(fromBackend + "hello, world!")
	done := make(chan bool, 2)
	go func() {
		defer func() { done <- true }()
		b := make([]byte, 4096)
		for {
			if _, err := origin.Read(b); err != nil {
				return
			}
			if _, err := origin.Write(answer); err != nil {
				return
			}
		}
	}()
	call := NewClient(upstream)
	go func() {
		defer func() { done <- true }()
		var r message.Response
		_ = Serve(proxy, &message.ConnInfo{}, NewLimits(&model.ListenerPolicy{}), func(s message.Stream) {
			forward(t, s, call, &r)
		})
	}()
	return client, func() {
		for _, c := range []net.Conn{client, origin, upstream, proxy} {
			_ = c.Close()
		}
		<-done
		<-done
	}
}

// forward is the least that an engine does.
func forward(t testing.TB, s message.Stream, c *Client, r *message.Response) {
	fail := func(err error) bool {
		if err != nil {
			t.Error(err)
			s.Abort()
		}
		return err != nil
	}
	if fail(c.Send(s.Request(), true)) || fail(c.Receive(r)) {
		return
	}
	p, all := c.Buffered()
	if !all {
		fail(io.ErrUnexpectedEOF)
		return
	}
	if fail(s.WriteHead(r, false)) || fail(s.WriteBody(p, true)) {
		return
	}
	c.Close()
}

// socketPair returns both ends of a connection over loopback.
func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func BenchmarkParseRequest(b *testing.B) {
	in := []byte(browser)
	var r message.Request
	var h head
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		r.Reset()
		h.reset()
		if n, err := parseRequest(in, &r, &h, 100); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkParseResponse(b *testing.B) {
	in := []byte(fromBackend)
	var r message.Response
	var h head
	var a asked
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		r.Reset()
		h.reset()
		if n, _, err := parseResponse(in, &r, &h, &a, 100); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkWriteRequestHead(b *testing.B) {
	var r message.Request
	var h head
	h.reset()
	if _, err := parseRequest([]byte(browser), &r, &h, 100); err != nil {
		b.Fatal(err)
	}
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := appendRequestHead(out, &r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkProxy sends one request after the other from a client over loopback
// through a server and a client connection to a backend: profile it to see what
// the proxy itself costs beside the sockets.
func BenchmarkProxy(b *testing.B) {
	front, stop := startChain(b)
	defer stop()
	request, got := []byte(browser), make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := front.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := front.Read(got); err != nil {
			b.Fatal(err)
		}
	}
}
