package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// TestMalformedRequests sends requests that RFC 9113 8 calls malformed. Each is
// reset with PROTOCOL_ERROR, the handler never sees it, and the connection goes on.
func TestMalformedRequests(t *testing.T) {
	base := func(replace ...string) []string {
		out := get()
		for i := 0; i < len(replace); i += 2 {
			found := false
			for j := 0; j < len(out); j += 2 {
				if out[j] == replace[i] {
					out[j+1], found = replace[i+1], true
				}
			}
			if !found {
				out = append(out, replace[i:i+2]...)
			}
		}
		return out
	}
	without := func(name string) []string {
		var out []string
		for i, f := 0, get(); i < len(f); i += 2 {
			if f[i] != name {
				out = append(out, f[i:i+2]...)
			}
		}
		return out
	}
	for name, fields := range map[string][]string{
		"no method":                       without(":method"),
		"no scheme":                       without(":scheme"),
		"no path":                         without(":path"),
		"no authority and no host":        without(":authority"),
		"method twice":                    append([]string{":method", "GET"}, get()...),
		"path twice":                      append([]string{":path", "/admin"}, get()...),
		"authority twice":                 append([]string{":authority", "other"}, get()...),
		"pseudo-header after a field":     append([]string{"accept", "*/*"}, get()...),
		"unknown pseudo-header":           append([]string{":user", "x"}, get()...),
		"response's pseudo-header":        append([]string{":status", "200"}, get()...),
		"method with a space":             base(":method", "GET /admin HTTP/1.1"),
		"method with CR LF":               base(":method", "GET\r\nx: y"),
		"empty method":                    base(":method", ""),
		"empty path":                      base(":path", ""),
		"path without a slash":            base(":path", "admin"),
		"path with a space":               base(":path", "/a HTTP/1.1"),
		"path with CR LF":                 base(":path", "/a\r\nx: y"),
		"path with NUL":                   base(":path", "/a\x00"),
		"path with a fragment":            base(":path", "/a#b"),
		"asterisk without OPTIONS":        base(":path", "*"),
		"absolute path":                   base(":path", "http://example.com/"),
		"scheme of another kind":          base(":scheme", "ftp"),
		"scheme with an injection":        base(":scheme", "http://internal/?"),
		"authority with user information": base(":authority", "user@example.com"),
		"authority with a path":           base(":authority", "example.com/admin"),
		"authority with a space":          base(":authority", "example.com evil"),
		"authority with CR LF":            base(":authority", "example.com\r\nx: y"),
		"authority with a bad port":       base(":authority", "example.com:80a"),
		"authority with two ports":        base(":authority", "example.com:80:81"),
		"authority with an open bracket":  base(":authority", "[::1"),
		"empty authority":                 base(":authority", ""),
		"authority and host differ":       base("host", "internal"),
		"host twice":                      append(base("host", "example.com"), "host", "example.com"),
		"upper case name":                 base("X-Test", "a"),
		"empty name":                      base("", "a"),
		"name with a space":               base("x test", "a"),
		"name with a colon":               base("x:test", "a"),
		"name with CR LF":                 base("x\r\ny", "a"),
		"name with NUL":                   base("x\x00", "a"),
		"name beyond ASCII":               base("x\xc3", "a"),
		"value with CR":                   base("x", "a\rb"),
		"value with LF":                   base("x", "a\nb"),
		"value with NUL":                  base("x", "a\x00b"),
		"value with DEL":                  base("x", "a\x7f"),
		"value with space before it":      base("x", " a"),
		"value with space after it":       base("x", "a "),
		"connection":                      base("connection", "close"),
		"keep-alive":                      base("keep-alive", "1"),
		"proxy-connection":                base("proxy-connection", "close"),
		"transfer-encoding":               base("transfer-encoding", "chunked"),
		"upgrade":                         base("upgrade", "h2c"),
		"te that is not trailers":         base("te", "gzip"),
		"content-length without a body":   base("content-length", "3"),
		"negative content-length":         base("content-length", "-1"),
		"signed content-length":           base("content-length", "+0"),
		"content-length list":             base("content-length", "0, 0"),
		"huge content-length":             base("content-length", strings.Repeat("9", 30)),
		"content-length twice":            append(base("content-length", "0"), "content-length", "0"),
		"protocol without CONNECT":        append([]string{":protocol", "websocket"}, get()...),
		"CONNECT with a path":             base(":method", "CONNECT"),
		"CONNECT without authority":       {":method", "CONNECT"},
		"empty protocol":                  append([]string{":protocol", ""}, base(":method", "CONNECT")...),
		"protocol with an injection":      append([]string{":protocol", "websocket\r\nx: y"}, base(":method", "CONNECT")...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, Limits{}, nil, func(s message.Stream) {
				if string(s.Request().Path) != "/" || len(s.Request().Fields) > 0 {
					t.Errorf("the handler got %+v", s.Request())
				}
				echo(s)
			})
			p := dialPeer(t, s.addr)
			p.headers(1, true, fields...)
			if r := p.await(1); r.reset == nil || *r.reset != http2.ErrCodeProtocol {
				t.Errorf("got %+v", r)
			}
			p.wantAlive(3)
		})
	}
}

func TestMalformedBodies(t *testing.T) {
	for name, c := range map[string]struct {
		length string
		send   func(p *peer)
	}{
		"longer than content-length": {"3", func(p *peer) { p.check(p.fr.WriteData(1, false, []byte("four"))) }},
		"longer in two frames": {"3", func(p *peer) {
			p.check(p.fr.WriteData(1, false, []byte("th")))
			p.check(p.fr.WriteData(1, true, []byte("re")))
		}},
		"shorter than content-length":   {"3", func(p *peer) { p.check(p.fr.WriteData(1, true, []byte("2."))) }},
		"shorter, with trailers":        {"3", func(p *peer) { p.check(p.fr.WriteData(1, false, []byte("2."))); p.headers(1, true, "x", "y") }},
		"trailers that do not end it":   {"3", func(p *peer) { p.headers(1, false, "x", "y") }},
		"trailers with a pseudo-header": {"3", func(p *peer) { p.check(p.fr.WriteData(1, false, []byte("3.."))); p.headers(1, true, ":path", "/") }},
		"trailers with content-length": {"3", func(p *peer) {
			p.check(p.fr.WriteData(1, false, []byte("3..")))
			p.headers(1, true, "content-length", "3")
		}},
		"trailers with transfer-encoding": {"3", func(p *peer) {
			p.check(p.fr.WriteData(1, false, []byte("3..")))
			p.headers(1, true, "transfer-encoding", "chunked")
		}},
		"trailers with a line break inside": {"3", func(p *peer) { p.check(p.fr.WriteData(1, false, []byte("3.."))); p.headers(1, true, "x", "a\r\nb") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result := make(chan error, 2)
			s := serve(t, Limits{}, nil, func(s message.Stream) {
				if string(s.Request().Method) == "GET" {
					echo(s)
					return
				}
				_, err := io.ReadAll(bodyReader{s})
				result <- err
			})
			p := dialPeer(t, s.addr)
			p.headers(1, false, post("content-length", c.length)...)
			c.send(p)
			if r := p.await(1); r.reset == nil || *r.reset != http2.ErrCodeProtocol {
				t.Errorf("got %+v", r)
			}
			if err, ok := (<-result).(*message.Error); !ok || err.Reason == "" {
				t.Errorf("the handler read the body with error %v", err)
			}
			p.wantAlive(3)
		})
	}
}

// TestConnectionThatEndsInABody must not look like the end of the body.
func TestConnectionThatEndsInABody(t *testing.T) {
	for name, length := range map[string]string{"known length": "10", "unknown length": ""} {
		t.Run(name, func(t *testing.T) {
			result := make(chan error, 1)
			s := serve(t, Limits{}, nil, func(s message.Stream) {
				_, err := io.ReadAll(bodyReader{s})
				result <- err
			})
			p := dialPeer(t, s.addr)
			fields := post()
			if length != "" {
				fields = post("content-length", length)
			}
			p.headers(1, false, fields...)
			p.check(p.fr.WriteData(1, false, []byte("half.")))
			p.nc.Close()
			var me *message.Error
			if err := <-result; !errors.As(err, &me) || me.Status != 0 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestRequests holds what the handler gets of requests that are in order.
func TestRequests(t *testing.T) {
	heads := make(chan string, 1)
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		r := s.Request()
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s %s %s length %d expect %v trailers %v upgrade %q", r.Method, r.Scheme, r.Authority, r.Path, r.Length, r.Expect100, r.Trailers, r.Upgrade)
		for _, f := range r.Fields {
			fmt.Fprintf(&b, " %s=%s(%s)", f.Name, f.Value, f.ID)
		}
		heads <- b.String()
		_ = s.WriteHead(&message.Response{Status: 204}, true)
	})
	p := dialPeer(t, s.addr)
	id := uint32(1)
	for _, c := range []struct {
		name   string
		fields []string
		end    bool
		want   string
	}{
		{"plain", get("accept", "a", "x-y", "z"), true, `GET http example.com / length 0 expect false trailers false upgrade "" accept=a() x-y=z()`},
		{"empty value", get("x-y", ""), true, `GET http example.com / length 0 expect false trailers false upgrade "" x-y=()`},
		{"host alone", []string{":method", "GET", ":scheme", "http", ":path", "/", "host", "a.b:8080"}, true, `GET http a.b:8080 / length 0 expect false trailers false upgrade ""`},
		{"host and authority", get("host", "EXAMPLE.com"), true, `GET http example.com / length 0 expect false trailers false upgrade ""`},
		{"scheme is that of the connection", []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"}, true, `GET http a / length 0 expect false trailers false upgrade ""`},
		{"body of known length", post("content-length", "5"), false, `POST http example.com / length 5 expect false trailers false upgrade ""`},
		{"body of unknown length", post(), false, `POST http example.com / length -1 expect false trailers false upgrade ""`},
		{"content-length 0", post("content-length", "0"), true, `POST http example.com / length 0 expect false trailers false upgrade ""`},
		{"expect", post("expect", "100-Continue"), false, `POST http example.com / length -1 expect true trailers false upgrade ""`},
		{"te", get("te", "trailers"), true, `GET http example.com / length 0 expect false trailers true upgrade ""`},
		{"cookie crumbs", get("cookie", "a=1", "x", "y", "cookie", "b=2", "cookie", "c=3"), true, `GET http example.com / length 0 expect false trailers false upgrade "" cookie=a=1; b=2; c=3(cookie) x=y()`},
		{"OPTIONS *", []string{":method", "OPTIONS", ":scheme", "http", ":authority", "a", ":path", "*"}, true, `OPTIONS http a * length 0 expect false trailers false upgrade ""`},
		{"IPv6", []string{":method", "GET", ":scheme", "http", ":authority", "[::1]:80", ":path", "/?q"}, true, `GET http [::1]:80 /?q length 0 expect false trailers false upgrade ""`},
		{"extended CONNECT", []string{":method", "CONNECT", ":protocol", "WebSocket", ":scheme", "http", ":authority", "a", ":path", "/ws"}, false, `GET http a /ws length -1 expect false trailers false upgrade "websocket"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.t = t
			p.headers(id, c.end, c.fields...)
			if got := <-heads; got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if r := p.await(id); len(r.heads) != 1 || r.heads[0][":status"] != "204" {
				t.Errorf("got %+v", r)
			}
			id += 2
		})
	}
}

func TestTooLargeHeads(t *testing.T) {
	var many []string
	for i := range 101 {
		many = append(many, fmt.Sprintf("x-%d", i), "y")
	}
	for name, fields := range map[string][]string{
		"too many fields":    get(many...),
		"one long field":     get("x", strings.Repeat("y", 70_000)),
		"many long fields":   get(strings.Split(strings.Repeat("x,"+strings.Repeat("y", 1000)+",", 70)+"z", ",")[:140]...),
		"many cookie crumbs": get(strings.Split(strings.Repeat("cookie,a,", 2000)+"z", ",")[:4000]...),
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Limits{}, nil, echo)
			p := dialPeer(t, s.addr)
			p.longHeaders(1, true, fields...)
			if r := p.await(1); len(r.heads) != 1 || r.heads[0][":status"] != "431" {
				t.Errorf("got %+v", r)
			}
			p.wantAlive(3)
		})
	}
}

func TestConnectIsRefusedUnlessWanted(t *testing.T) {
	for _, allow := range []bool{false, true} {
		s := serve(t, Limits{AllowConnect: allow}, nil, func(s message.Stream) {
			if r := s.Request(); string(r.Method) != "CONNECT" || string(r.Authority) != "internal:22" || len(r.Path) > 0 {
				t.Errorf("got %+v", r)
			}
			_ = s.WriteHead(&message.Response{Status: 403}, true)
		})
		p := dialPeer(t, s.addr)
		p.headers(1, false, ":method", "CONNECT", ":authority", "internal:22")
		want := "501"
		if allow {
			want = "403"
		}
		if r := p.await(1); len(r.heads) != 1 || r.heads[0][":status"] != want {
			t.Errorf("allowed: %v: got %+v", allow, r)
		}
	}
}

func TestTrailersAndInformationalHeads(t *testing.T) {
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		_ = s.WriteInformational(&message.Response{Status: 103, Fields: []message.Field{field("link", "</a>")}})
		echo(s)
	})
	p := dialPeer(t, s.addr)
	p.headers(1, false, post("expect", "100-continue")...)
	f, ok := p.read().(*http2.HeadersFrame)
	if !ok {
		t.Fatal("no HEADERS")
	}
	if fields, err := p.dec.DecodeFull(f.HeaderBlockFragment()); err != nil || fields[0].Value != "103" {
		t.Fatal(fields, err)
	}
	if f, ok = p.read().(*http2.HeadersFrame); !ok {
		t.Fatal("no HEADERS")
	}
	if fields, err := p.dec.DecodeFull(f.HeaderBlockFragment()); err != nil || fields[0].Value != "100" {
		t.Fatal(fields, err)
	}
	p.check(p.fr.WriteDataPadded(1, false, []byte("body"), make([]byte, 20)))
	p.headers(1, true, "x-check", "sum")
	r := p.await(1)
	if string(r.body) != "body" || len(r.heads) != 2 || r.heads[1]["x-check"] != "sum" {
		t.Errorf("got %+v", r)
	}
}

// TestHeadLargerThanAFrame answers with a head that needs CONTINUATION.
func TestHeadLargerThanAFrame(t *testing.T) {
	long := strings.Repeat("v", 40_000)
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		_ = s.WriteHead(&message.Response{Status: 200, Fields: []message.Field{field("x-long", long), field("x-last", "1")}}, true)
	})
	p := dialPeer(t, s.addr)
	p.headers(1, true, get()...)
	var block []byte
	for end := false; !end; {
		switch f := p.read().(type) {
		case *http2.HeadersFrame:
			block = append(block, f.HeaderBlockFragment()...)
			end = f.HeadersEnded()
		case *http2.ContinuationFrame:
			block = append(block, f.HeaderBlockFragment()...)
			end = f.HeadersEnded()
		}
	}
	fields, err := p.dec.DecodeFull(block)
	if err != nil || len(fields) != 3 || fields[1].Value != long || fields[2].Name != "x-last" {
		t.Errorf("%d fields, %v", len(fields), err)
	}
}

// TestLargeBodies sends a body through all windows, both ways.
func TestLargeBodies(t *testing.T) {
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		_ = s.WriteHead(&message.Response{Status: 200, Length: message.UnknownLength}, false)
		p := make([]byte, 5000)
		for {
			n, err := s.ReadBody(p)
			if err == io.EOF {
				_ = s.WriteBody(nil, true)
				return
			}
			if err != nil || s.WriteBody(p[:n], false) != nil {
				s.Abort()
				return
			}
		}
	})
	c := dialClient(t, s.addr, ClientConfig{})
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB
	call := open(t, c)
	defer call.Close()
	if err := call.Send(newRequest("POST", "/"), false); err != nil {
		t.Fatal(err)
	}
	go func() {
		for p := body; len(p) > 0; {
			n := min(len(p), 30_000)
			if err := call.WriteBody(p[:n], n == len(p)); err != nil {
				t.Error(err)
				return
			}
			p = p[n:]
		}
	}()
	var r message.Response
	if err := call.Receive(&r); err != nil || r.Status != 200 {
		t.Fatal(r, err)
	}
	if got, err := io.ReadAll(callReader{call}); err != nil || !bytes.Equal(got, body) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}
