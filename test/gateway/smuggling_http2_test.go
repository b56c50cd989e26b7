package gateway

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairwaynet/fairway/internal/model"
)

// peer is an HTTP/2 client that sends whatever it is told to.
type peer struct {
	net.Conn
	fr  *http2.Framer
	buf bytes.Buffer
	enc *hpack.Encoder
}

func dialPeer(t *testing.T, addr string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p, err := newPeer(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newPeer(c net.Conn, settings ...http2.Setting) (*peer, error) {
	p := &peer{Conn: c, fr: http2.NewFramer(c, c)}
	p.fr.AllowIllegalWrites = true
	p.fr.AllowIllegalReads = true
	p.enc = hpack.NewEncoder(&p.buf)
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	return p, p.fr.WriteSettings(settings...)
}

// block encodes names and values in turn, as they are.
func (p *peer) block(fields ...string) []byte {
	p.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		// A bytes.Buffer takes everything.
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.buf.Bytes())
}

func (p *peer) headers(id uint32, end bool, fields ...string) error {
	return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(fields...), EndStream: end, EndHeaders: true})
}

// outcome reads until stream id or the connection ends, and returns the status of
// its final head, or what ended it.
func (p *peer) outcome(id uint32) string {
	dec := hpack.NewDecoder(4096, nil)
	status := ""
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			return err.Error()
		}
		ended := false
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = p.fr.WriteSettingsAck()
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return f.ErrCode.String()
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id && f.ErrCode != http2.ErrCodeNo {
				return f.ErrCode.String()
			}
		case *http2.HeadersFrame:
			fields, err := dec.DecodeFull(f.HeaderBlockFragment())
			if err != nil {
				return err.Error()
			}
			for _, h := range fields {
				if h.Name == ":status" && f.StreamID == id {
					status = h.Value
				}
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			ended = f.StreamEnded()
		}
		if ended && f.Header().StreamID == id {
			return status
		}
	}
}

// injections are heads of HTTP/2 that would be other requests in HTTP/1.1.
var injections = map[string][]string{
	"CRLF in a value":                 get2("x", "y\r\ntransfer-encoding: chunked"),
	"a request in a value":            get2("x", "y\r\n\r\n"+hidden),
	"LF in a value":                   get2("x", "y\nz: 1"),
	"CR in a value":                   get2("x", "y\rz: 1"),
	"NUL in a value":                  get2("x", "y\x00z"),
	"CRLF in a name":                  get2("x: y\r\nz", "1"),
	"a colon in a name":               get2("x: y", "1"),
	"a space in a name":               get2("x y", "1"),
	"a capital in a name":             get2("X", "y"),
	"an empty name":                   get2("", "y"),
	"CRLF in :path":                   base2(":path", "/ HTTP/1.1\r\nhost: a\r\n\r\n"+hidden),
	"a space in :path":                base2(":path", "/ HTTP/1.1"),
	"a fragment in :path":             base2(":path", "/a#b"),
	"an empty :path":                  base2(":path", ""),
	"a :path without a slash":         base2(":path", "a"),
	"a space in :method":              base2(":method", "GET /hidden HTTP/1.1"),
	"CRLF in :method":                 base2(":method", "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\nGET"),
	"CRLF in :authority":              base2(":authority", "a\r\nx: y"),
	"a path in :authority":            base2(":authority", "a/b"),
	"a user in :authority":            base2(":authority", "b@a"),
	"CRLF in :scheme":                 base2(":scheme", "http\r\nx: y"),
	"two :paths":                      append([]string{":path", "/x"}, get2()...),
	"two :methods":                    append([]string{":method", "GET"}, get2()...),
	"two :authorities":                append([]string{":authority", "b"}, get2()...),
	":path behind a field":            {":method", "GET", ":scheme", "http", ":authority", "a", "x", "y", ":path", "/"},
	"an unknown pseudo-header":        append([]string{":user", "x"}, get2()...),
	":status":                         append([]string{":status", "200"}, get2()...),
	"no :path":                        {":method", "GET", ":scheme", "http", ":authority", "a"},
	"no :method":                      {":path", "/", ":scheme", "http", ":authority", "a"},
	"Host that differs":               get2("host", "b"),
	"two Hosts":                       get2("host", "a", "host", "a"),
	"H2.TE":                           get2("transfer-encoding", "chunked"),
	"Connection":                      get2("connection", "transfer-encoding"),
	"Keep-Alive":                      get2("keep-alive", "timeout=5"),
	"Proxy-Connection":                get2("proxy-connection", "close"),
	"Upgrade":                         get2("upgrade", "h2c"),
	"TE other than trailers":          get2("te", "gzip"),
	"two content lengths":             get2("content-length", "0", "content-length", "0"),
	"two content lengths that differ": get2("content-length", "0", "content-length", "33"),
	"a content length with a sign":    get2("content-length", "+0"),
	"a content length and no body":    get2("content-length", "33"),
}

// get2 is a head with more fields behind.
func get2(more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}, more...)
}

// base2 is a head with one field of it replaced.
func base2(name, value string) []string {
	fields := get2()
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == name {
			fields[i+1] = value
		}
	}
	return fields
}

func wantNoSuccess(t *testing.T, outcome string) {
	t.Helper()
	if outcome == "" || strings.HasPrefix(outcome, "1") || strings.HasPrefix(outcome, "2") || strings.HasPrefix(outcome, "3") || strings.Contains(outcome, "timeout") {
		t.Errorf("the stream ended with %q", outcome)
	}
}

func TestHTTP2InjectionIsRefused(t *testing.T) {
	for name, fields := range injections {
		t.Run(name, func(t *testing.T) {
			b := startRecorder(t)
			e := startEngine(t, b.addr, model.HTTPRoute, model.UpstreamHTTP1)
			p := dialPeer(t, e.plain)
			if err := p.headers(1, true, fields...); err != nil {
				t.Fatal(err)
			}
			wantNoSuccess(t, p.outcome(1))
			if all, _, _ := b.seen(); all != "" {
				t.Errorf("the backend got %q", all)
			}
			wantSound(t, e, b)
		})
	}
}

// TestHTTP2BodiesKeepTheirLength has bodies that are not what content-length says,
// and trailers that say something else of the framing.
func TestHTTP2BodiesKeepTheirLength(t *testing.T) {
	head := func(more ...string) []string {
		return append([]string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"}, more...)
	}
	// The backend may have the whole of what the head announced, and have answered,
	// before that comes which must not: then it is only not passed on.
	early := map[string]bool{"H2.CL, a body behind length 0": true, "H2.CL, in a second frame": true}
	for name, send := range map[string]func(p *peer) []error{
		"H2.CL, a body behind length 0": func(p *peer) []error {
			return []error{p.headers(1, false, head("content-length", "0")...), p.fr.WriteData(1, true, []byte(hidden))}
		},
		"H2.CL, less than that": func(p *peer) []error {
			return []error{p.headers(1, false, head("content-length", "99")...), p.fr.WriteData(1, true, []byte(hidden))}
		},
		"H2.CL, in a second frame": func(p *peer) []error {
			return []error{p.headers(1, false, head("content-length", "1")...), p.fr.WriteData(1, false, []byte("x")), p.fr.WriteData(1, true, []byte(hidden))}
		},
		"CRLF in the trailers": func(p *peer) []error {
			return []error{p.headers(1, false, head()...), p.fr.WriteData(1, false, []byte("x")), p.headers(1, true, "x", "y\r\n\r\n"+hidden)}
		},
		"a pseudo-header in the trailers": func(p *peer) []error {
			return []error{p.headers(1, false, head()...), p.fr.WriteData(1, false, []byte("x")), p.headers(1, true, ":path", "/hidden")}
		},
		"a transfer coding in the trailers": func(p *peer) []error {
			return []error{p.headers(1, false, head()...), p.fr.WriteData(1, false, []byte("x")), p.headers(1, true, "transfer-encoding", "chunked")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := startRecorder(t)
			e := startEngine(t, b.addr, model.HTTPRoute, model.UpstreamHTTP1)
			p := dialPeer(t, e.plain)
			for _, err := range send(p) {
				if err != nil {
					t.Fatal(err)
				}
			}
			outcome := p.outcome(1)
			wantSound(t, e, b)
			all, _, whole := b.seen()
			if early[name] {
				whole = min(whole, 1)
			} else {
				wantNoSuccess(t, outcome)
			}
			if whole != 1 || strings.Contains(all, "GET /hidden") && !strings.Contains(all, "content-length: 99\r\n") {
				t.Errorf("the backend took %d requests as whole: %q", whole, all)
			}
		})
	}
}

// TestHTTP2BodyThatLooksLikeChunks goes on in one framing that it cannot leave.
func TestHTTP2BodyThatLooksLikeChunks(t *testing.T) {
	b := startRecorder(t)
	e := startEngine(t, b.addr, model.HTTPRoute, model.UpstreamHTTP1)
	p := dialPeer(t, e.plain)
	if err := p.headers(1, false, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"); err != nil {
		t.Fatal(err)
	}
	if err := p.fr.WriteData(1, true, []byte("0\r\n\r\n"+hidden)); err != nil {
		t.Fatal(err)
	}
	if got := p.outcome(1); got != "200" {
		t.Errorf("the stream ended with %q", got)
	}
	wantSound(t, e, b)
	if all, heads, whole := b.seen(); len(heads) != 2 || whole != 2 {
		t.Errorf("the backend saw %q", all)
	}
}
