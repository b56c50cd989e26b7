package http2

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%s: it did not happen\n%s", what, buf[:runtime.Stack(buf, true)])
		}
	}
}

// testServer serves connections with Serve.
type testServer struct {
	addr string
	mu   sync.Mutex
	errs []error // what Serve returned
	open int
	down bool // info.Closing
}

func (s *testServer) results() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.errs...)
}

func (s *testServer) closing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

func (s *testServer) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
}

func serve(t testing.TB, limits Limits, config *tls.Config, h message.Handler) *testServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{addr: l.Addr().String()}
	var conns sync.Map
	t.Cleanup(func() {
		l.Close()
		conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		eventually(t, "the server ends", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.open == 0 })
	})
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(nc, nil)
			s.mu.Lock()
			s.open++
			s.mu.Unlock()
			go func() {
				info := &message.ConnInfo{Protocol: "HTTP/2", Closing: s.closing}
				var c net.Conn = nc
				var err error
				if config != nil {
					tc := tls.Server(nc, config)
					if err = tc.Handshake(); err == nil {
						state := tc.ConnectionState()
						info.TLS = &state
					}
					c = tc
				}
				if err == nil {
					err = Serve(c, info, limits, h)
				}
				conns.Delete(nc)
				s.mu.Lock()
				s.errs = append(s.errs, err)
				s.open--
				s.mu.Unlock()
			}()
		}
	}()
	return s
}

// serverTLS returns a configuration with a certificate that is made for the test.
func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}}
}

// echo answers with the body and the trailers it gets.
func echo(s message.Stream) {
	body, err := io.ReadAll(bodyReader{s})
	if err != nil {
		s.Abort()
		return
	}
	r := &message.Response{Status: 200, Fields: []message.Field{field("content-type", "text/plain"), field("x-path", string(s.Request().Path))}}
	for _, f := range s.Request().Fields {
		if bytes.HasPrefix(f.Name, []byte("x-")) {
			r.Fields = append(r.Fields, f)
		}
	}
	if string(s.Request().Method) == "HEAD" {
		r.Length = message.Length(13)
		_ = s.WriteHead(r, true)
		return
	}
	trailers := s.RequestTrailers()
	if len(body) == 0 {
		body = []byte("Hello, world\n")
	}
	r.Length = message.Length(len(body))
	if err := s.WriteHead(r, false); err != nil {
		return
	}
	if err := s.WriteBody(body, len(trailers) == 0); err != nil || len(trailers) == 0 {
		return
	}
	_ = s.WriteTrailers(trailers)
}

type bodyReader struct{ s message.Stream }

func (b bodyReader) Read(p []byte) (int, error) { return b.s.ReadBody(p) }

type callReader struct{ c message.Call }

func (b callReader) Read(p []byte) (int, error) { return b.c.ReadBody(p) }

func field(name, value string) message.Field {
	return message.Field{Name: []byte(name), Value: []byte(value), ID: message.Lookup([]byte(name))}
}

// peer speaks raw frames.
type peer struct {
	t   testing.TB
	nc  net.Conn
	fr  *http2.Framer
	buf bytes.Buffer
	enc *hpack.Encoder
	dec *hpack.Decoder
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	p := &peer{t: t, nc: nc, fr: http2.NewFramer(nc, nc)}
	p.fr.AllowIllegalWrites, p.fr.AllowIllegalReads = true, true
	p.enc = hpack.NewEncoder(&p.buf)
	p.dec = hpack.NewDecoder(4096, nil)
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return p
}

// dialPeer connects, and exchanges settings.
func dialPeer(t testing.TB, addr string, settings ...http2.Setting) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, nc)
	if _, err := io.WriteString(nc, preface); err != nil {
		t.Fatal(err)
	}
	p.check(p.fr.WriteSettings(settings...))
	for acked := false; !acked; {
		if f, ok := p.read().(*http2.SettingsFrame); ok {
			if acked = f.IsAck(); !acked {
				p.check(p.fr.WriteSettingsAck())
			}
		}
	}
	return p
}

func (p *peer) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// block encodes fields, given as names and values in turn.
func (p *peer) block(fields ...string) []byte {
	p.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.check(p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return append([]byte(nil), p.buf.Bytes()...)
}

func get(more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":authority", "example.com", ":path", "/"}, more...)
}

func post(more ...string) []string {
	return append([]string{":method", "POST", ":scheme", "http", ":authority", "example.com", ":path", "/"}, more...)
}

func (p *peer) headers(id uint32, end bool, fields ...string) {
	p.t.Helper()
	p.check(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(fields...), EndStream: end, EndHeaders: true}))
}

// longHeaders sends a header block in as many frames as it needs.
func (p *peer) longHeaders(id uint32, end bool, fields ...string) {
	p.t.Helper()
	block := p.block(fields...)
	n := min(len(block), maxFrame)
	p.check(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndStream: end, EndHeaders: n == len(block)}))
	for block = block[n:]; len(block) > 0; block = block[n:] {
		n = min(len(block), maxFrame)
		p.check(p.fr.WriteContinuation(id, n == len(block), block[:n]))
	}
}

// read reads a frame.
func (p *peer) read() http2.Frame {
	p.t.Helper()
	f, err := p.fr.ReadFrame()
	p.check(err)
	return f
}

// response is what came on a stream until it ended.
type response struct {
	heads []map[string]string // informational, final, trailers
	body  []byte
	reset *http2.ErrCode
}

// await reads until the stream ends. Windows are given back.
func (p *peer) await(id uint32) *response {
	p.t.Helper()
	r := &response{}
	for {
		switch f := p.read().(type) {
		case *http2.HeadersFrame:
			fields, err := p.dec.DecodeFull(f.HeaderBlockFragment())
			p.check(err)
			if f.StreamID != id {
				continue
			}
			m := map[string]string{}
			for _, x := range fields {
				m[x.Name] = x.Value
			}
			r.heads = append(r.heads, m)
			if f.StreamEnded() {
				return r
			}
		case *http2.DataFrame:
			if n := len(f.Data()); n > 0 {
				p.check(p.fr.WriteWindowUpdate(0, uint32(n)))
				if f.StreamID == id && !f.StreamEnded() {
					p.check(p.fr.WriteWindowUpdate(id, uint32(n)))
				}
			}
			if f.StreamID == id {
				r.body = append(r.body, f.Data()...)
				if f.StreamEnded() {
					return r
				}
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				r.reset = &f.ErrCode
				return r
			}
		case *http2.GoAwayFrame:
			p.t.Fatalf("GOAWAY %v while stream %d is awaited", f.ErrCode, id)
		}
	}
}

// ended reads until the connection ends, and returns the code of its last GOAWAY.
func (p *peer) ended() (http2.ErrCode, bool) {
	p.t.Helper()
	var code http2.ErrCode
	said := false
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				p.t.Fatal("the connection did not end")
			}
			return code, said
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			code, said = g.ErrCode, true
		}
	}
}

// wantEnd expects GOAWAY with that code, and the end of the connection.
func (p *peer) wantEnd(want http2.ErrCode) {
	p.t.Helper()
	if code, said := p.ended(); !said || code != want {
		p.t.Errorf("the connection ended with %v (GOAWAY: %v), want %v", code, said, want)
	}
}

// wantAlive expects that the connection serves a request.
func (p *peer) wantAlive(id uint32) {
	p.t.Helper()
	p.headers(id, true, get()...)
	if r := p.await(id); len(r.heads) != 1 || r.heads[0][":status"] != "200" {
		p.t.Errorf("stream %d: %+v", id, r)
	}
}
