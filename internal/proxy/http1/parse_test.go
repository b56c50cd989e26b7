package http1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// show writes a request as "METHOD authority path length; name=value ...; flags".
func show(r *message.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %d;", r.Method, r.Authority, r.Path, r.Length)
	for _, f := range r.Fields {
		fmt.Fprintf(&b, " %s=%s", f.Name, f.Value)
	}
	b.WriteString(";")
	if r.HTTP10 {
		b.WriteString(" http10")
	}
	if r.Expect100 {
		b.WriteString(" expect")
	}
	if r.Trailers {
		b.WriteString(" trailers")
	}
	if r.Upgrade != nil {
		b.WriteString(" upgrade=" + string(r.Upgrade))
	}
	return b.String()
}

func parseRequestString(text string) (string, int, *message.Error) {
	var r message.Request
	var h head
	h.reset()
	r.Scheme = schemeHTTP
	n, err := parseRequest([]byte(text), &r, &h, 20)
	return show(&r), n, err
}

// accepted are requests, whole, and what they mean.
var accepted = []struct{ name, text, want string }{
	{"the least", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET a / 0;;"},
	{"an empty line before", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET a / 0;;"},
	{"names change to lower case, values do not", "GET / HTTP/1.1\r\nHOST: A\r\nX-Foo: Bar\r\n\r\n", "GET A / 0; x-foo=Bar;"},
	{"white space around a value", "GET / HTTP/1.1\r\nHost: a\r\nX:\t \tb \tc\t \r\n\r\n", "GET a / 0; x=b \tc;"},
	{"an empty value", "GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \r\n\r\n", "GET a / 0; x= y=;"},
	{"obs-text in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: caf\xc3\xa9\r\n\r\n", "GET a / 0; x=caf\xc3\xa9;"},
	{"every byte of a token", "!#$%&'*+-.^_`|~AZaz09 / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09: b\r\n\r\n", "!#$%&'*+-.^_`|~AZaz09 a / 0; !#$%&'*+-.^_`|~09=b;"},
	{"a port", "GET / HTTP/1.1\r\nHost: a:8080\r\n\r\n", "GET a:8080 / 0;;"},
	{"an IPv6 address", "GET / HTTP/1.1\r\nHost: [fd00::1]:80\r\n\r\n", "GET [fd00::1]:80 / 0;;"},
	{"an absolute target", "GET http://a.b/c?d HTTP/1.1\r\nHost: A.b\r\n\r\n", "GET A.b /c?d 0;;"},
	{"an absolute target without a path", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET a / 0;;"},
	{"an absolute target with a query only", "GET http://a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /?b=c 0;;"},
	{"an absolute target of OPTIONS", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS a * 0;;"},
	{"an asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS a * 0;;"},
	{"a content length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n", "POST a / 12;;"},
	{"a content length of nothing", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST a / 0;;"},
	{"a greatest content length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999999\r\n\r\n", "POST a / 999999999999999999;;"},
	{"chunks", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", "POST a / -1;;"},
	{"HTTP/1.0 without a host", "GET / HTTP/1.0\r\n\r\n", "GET  / 0;; http10"},
	{"what belongs to the connection", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop ,,x-other\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: b\r\nX-Keep: 2\r\nX-OTHER: 3\r\n\r\n", "GET a / 0; x-keep=2;"},
	{"te", "GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: gzip, trailers\r\n\r\n", "GET a / 0;; trailers"},
	{"an expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n", "POST a / 1;; expect"},
	{"an expectation without a body", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", "POST a / 0;;"},
	{"an upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n", "GET a / 0;; upgrade=websocket"},
	{"an upgrade that Connection does not name", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "GET a / 0;;"},
	{"an upgrade to h2c", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", "GET a / 0;;"},
	{"an upgrade in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "GET a / 0;; http10"},
}

func TestRequests(t *testing.T) {
	for _, c := range accepted {
		t.Run(c.name, func(t *testing.T) {
			got, n, err := parseRequestString(c.text + "rest")
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			if n != len(c.text) {
				t.Errorf("%d bytes, want %d", n, len(c.text))
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			// However little has come, it is not refused, and not taken for whole.
			for i := range len(c.text) {
				if _, n, err := parseRequestString(c.text[:i]); n != 0 || err != nil {
					t.Fatalf("the first %d bytes: %d, %v", i, n, err)
				}
			}
		})
	}
}

func TestManyFields(t *testing.T) {
	text := "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 19) + "\r\n"
	if _, n, err := parseRequestString(text); n != len(text) || err != nil {
		t.Errorf("20 fields: %d, %v", n, err)
	}
	text = strings.Replace(text, "X: y\r\n", "X: y\r\nX: y\r\n", 1)
	if _, _, err := parseRequestString(text); err != errFields {
		t.Errorf("21 fields: %v", err)
	}
}

// showResponse writes a response as "status length; name=value ...; flags".
func showResponse(r *message.Response, h *head, http10 bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d;", r.Status, r.Length)
	for _, f := range r.Fields {
		fmt.Fprintf(&b, " %s=%s", f.Name, f.Value)
	}
	b.WriteString(";")
	if !h.persistent(http10) {
		b.WriteString(" close")
	}
	if h.chunked {
		b.WriteString(" chunked")
	}
	if r.Upgrade {
		b.WriteString(" upgrade")
	}
	return b.String()
}

func TestResponses(t *testing.T) {
	for _, c := range []struct {
		name, text string
		asked      asked
		want       string
		err        *message.Error
	}{
		{name: "the least", text: "HTTP/1.1 200 OK\r\n\r\n", want: "200 -1;;"},
		{name: "no reason", text: "HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\n", want: "200 1;;"},
		{name: "no space", text: "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n", want: "200 1;;"},
		{name: "HTTP/1.0", text: "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", want: "200 1;; close"},
		{name: "HTTP/1.0 that stays", text: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n", want: "200 1;;"},
		{name: "chunks", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n", want: "200 -1; x=y; chunked"},
		{name: "close", text: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", want: "200 0;; close"},
		{name: "to HEAD", text: "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", asked: asked{head: true}, want: "200 7;;"},
		{name: "to HEAD without a length", text: "HTTP/1.1 200 OK\r\n\r\n", asked: asked{head: true}, want: "200 0;;"},
		{name: "304 with a length", text: "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", want: "304 7;;"},
		{name: "204", text: "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", want: "204 0;;"},
		{name: "103", text: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", want: "103 0; link=x;"},
		{name: "101", text: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n", asked: asked{upgrade: []byte("websocket")}, want: "101 0;; upgrade"},
		{name: "a status of no class", text: "HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n", want: "999 0;;"},

		{name: "101 to another protocol", text: "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: h3c\r\n\r\n", asked: asked{upgrade: []byte("websocket")}, err: errUpgradeUnasked},
		{name: "101 that nobody asked for", text: "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", err: errUpgradeUnasked},
		{name: "204 with a body", text: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", err: errStatusFraming},
		{name: "204 with chunks", text: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", err: errStatusFraming},
		{name: "103 with a body", text: "HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\n", err: errStatusFraming},
		{name: "both lengths", text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", err: errCodingLength},
		{name: "two lengths", text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", err: errContentLengths},
		{name: "a list of lengths", text: "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", err: errContentLength},
		{name: "chunks in HTTP/1.0", text: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", err: errCodingVersion},
		{name: "another coding", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", err: errCodingUnknown},
		{name: "bare LF", text: "HTTP/1.1 200 OK\nContent-Length: 5\n\n", err: errBareLF},
		{name: "bare LF in a field", text: "HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n", err: errBareLF},
		{name: "NUL in the reason", text: "HTTP/1.1 200 O\x00K\r\n\r\n", err: errStatusLine},
		{name: "a fold", text: "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", err: errFold},
		{name: "a short status", text: "HTTP/1.1 20 OK\r\n\r\n", err: errStatusLine},
		{name: "a long status", text: "HTTP/1.1 2000 OK\r\n\r\n", err: errStatusLine},
		{name: "a status below 100", text: "HTTP/1.1 099 OK\r\n\r\n", err: errStatusLine},
		{name: "another version", text: "HTTP/2.0 200 OK\r\n\r\n", err: errVersionSyntax},
		{name: "no head at all", text: "hello, world\r\n", err: errVersionSyntax},
	} {
		t.Run(c.name, func(t *testing.T) {
			parse := func(text string) (string, int, *message.Error) {
				var r message.Response
				var h head
				h.reset()
				n, http10, err := parseResponse([]byte(text), &r, &h, &c.asked, 20)
				return showResponse(&r, &h, http10), n, err
			}
			got, n, err := parse(c.text)
			if err != c.err {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			if n != len(c.text) || got != c.want {
				t.Errorf("got  %s, %d bytes\nwant %s, %d", got, n, c.want, len(c.text))
			}
			for i := range len(c.text) {
				if _, n, err := parse(c.text[:i]); n != 0 || err != nil {
					t.Fatalf("the first %d bytes: %d, %v", i, n, err)
				}
			}
		})
	}
}

// dechunk reads a whole chunked body, step bytes at a time.
func dechunk(text string, step int) (data, trailers string, rest int, err *message.Error) {
	var c chunks
	buf := []byte(text)
	from, to := 0, 0
	var out []byte
	for {
		n, err := c.advance(buf[from:to])
		from += n
		if err != nil {
			return "", "", 0, err
		}
		if c.left > 0 {
			n := min(int(c.left), to-from)
			out = append(out, buf[from:from+n]...)
			from += n
			c.left -= int64(n)
			if n > 0 {
				continue
			}
		} else if c.state == chunkTrailers {
			var h head
			h.reset()
			n, fields, err := parseTrailers(buf[from:to], &h, nil, 10)
			if err != nil {
				return "", "", 0, err
			}
			if n > 0 {
				var b strings.Builder
				for _, f := range fields {
					fmt.Fprintf(&b, "%s=%s ", f.Name, f.Value)
				}
				return string(out), b.String(), len(text) - from - n, nil
			}
		}
		if to == len(text) {
			return string(out), "", -1, nil
		}
		to = min(to+step, len(text))
	}
}

func TestChunks(t *testing.T) {
	for _, c := range []struct {
		name, text, data, trailers string
		rest                       int
		err                        *message.Error
	}{
		{name: "nothing", text: "0\r\n\r\n"},
		{name: "chunks", text: "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nnext", data: "hello world", rest: 4},
		{name: "hexadecimal", text: "0A\r\n0123456789\r\n00000000\r\n\r\n", data: "0123456789"},
		{name: "lower case", text: "a\r\n0123456789\r\n0\r\n\r\n", data: "0123456789"},
		{name: "extensions", text: "5;a=b\r\nhello\r\n1 ;\tc=\"d e\"\r\n!\r\n0;last\r\n\r\n", data: "hello!"},
		{name: "trailers", text: "1\r\na\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", data: "a", trailers: "x-sum=1 y=2 "},
		{name: "trailers that mean something in a head", text: "0\r\nAuthorization: x\r\nCookie: y\r\nTrailer: z\r\nConnection: q\r\nQ: 1\r\nA: b\r\n\r\n", trailers: "a=b "},
		{name: "cut short in the data", text: "5\r\nhel", data: "hel", rest: -1},
		{name: "cut short before the trailers", text: "0\r\n", rest: -1},

		{name: "no size", text: "\r\nhello\r\n", err: errChunkSize},
		{name: "a size with a sign", text: "+5\r\nhello\r\n", err: errChunkSize},
		{name: "a negative size", text: "-5\r\nhello\r\n", err: errChunkSize},
		{name: "a size with a prefix", text: "0x5\r\nhello\r\n0\r\n\r\n", err: errChunkSize},
		{name: "a size with an underscore", text: "1_0\r\nhello\r\n", err: errChunkSize},
		{name: "a space before the size", text: " 5\r\nhello\r\n", err: errChunkSize},
		{name: "a space after the size", text: "5 \r\nhello\r\n", err: errChunkSize},
		{name: "overflow", text: "10000000000000005\r\nhello\r\n", err: errChunkSize},
		{name: "a size above all", text: "FFFFFFFFFFFFFFFF\r\nhello\r\n", err: errChunkSize},
		{name: "too many zeros", text: "00000000000000005\r\nhello\r\n", err: errChunkSize},
		{name: "a size that LF ends", text: "5\nhello\r\n0\r\n\r\n", err: errBareLF},
		{name: "an extension that LF ends", text: "5;a\nhello\r\n0\r\n\r\n", err: errBareLF},
		{name: "an extension with CR", text: "5;a\rb\r\nhello\r\n0\r\n\r\n", err: errBareCR},
		{name: "an extension with NUL", text: "5;a\x00\r\nhello\r\n0\r\n\r\n", err: errChunkExtension},
		{name: "a long extension", text: "5;" + strings.Repeat("a", 300) + "\r\nhello\r\n0\r\n\r\n", err: errChunkExtension},
		{name: "many extensions", text: strings.Repeat("1;"+strings.Repeat("a", 100)+"\r\nx\r\n", 50), err: errChunkExtensions},
		{name: "more data than the size", text: "5\r\nhello!\r\n0\r\n\r\n", err: errChunkEnd},
		{name: "less data than the size", text: "5\r\nhell\r\n0\r\n\r\n", err: errChunkEnd},
		{name: "data that LF ends", text: "5\r\nhello\n0\r\n\r\n", err: errChunkEnd},
		{name: "data that CR ends", text: "5\r\nhello\r0\r\n\r\n", err: errChunkEnd},
		{name: "an end with bare LF", text: "0\r\n\n", err: errBareLF},
		{name: "content-length in a trailer", text: "0\r\nContent-Length: 5\r\n\r\n", err: errTrailer},
		{name: "transfer-encoding in a trailer", text: "0\r\nTransfer-Encoding: chunked\r\n\r\n", err: errTrailer},
		{name: "host in a trailer", text: "0\r\nHost: b\r\n\r\n", err: errTrailer},
		{name: "a fold in a trailer", text: "0\r\nA: b\r\n c\r\n\r\n", err: errFold},
		{name: "too many trailers", text: "0\r\n" + strings.Repeat("A: b\r\n", 11) + "\r\n", err: errFields},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, step := range []int{len(c.text), 1, 2, 3, 7} {
				data, trailers, rest, err := dechunk(c.text, step)
				if err != c.err || data != c.data || trailers != c.trailers || err == nil && rest != c.rest {
					t.Errorf("by %d: %q, %q, rest %d, %v\nwant %q, %q, rest %d, %v", step, data, trailers, rest, err, c.data, c.trailers, c.rest, c.err)
				}
			}
		})
	}
}
