package http1

import (
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// hidden is the request that an attack tries to bring in.
const hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"

// smuggling are requests that another server might read in another way. Each is
// sent whole, with hidden after it, to a server: it gives the answer of that
// status, once, ends the connection, and no handler sees hidden.
var smuggling = []struct {
	name, text string
	status     string
}{
	{"CL.TE", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", "400"},
	{"TE.CL", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, two fields", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, the second unknown", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, a list with chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, identity after chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, a vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, a parameter", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, quotes", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, an empty element", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, an empty value", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, a space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, a tab before the colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, a space before the name", "POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, a fold", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, behind a bare LF", "POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, behind a bare CR", "POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.TE, a NUL in the name", "POST / HTTP/1.1\r\nHost: a\r\nTransfer\x00-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"TE.0, HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"a coding that is not known", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
	{"a coding without chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", "400"},
	{"identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n", "400"},

	{"two content lengths that differ", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 33\r\n\r\n", "400"},
	{"two content lengths that do not", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", "400"},
	{"a list of content lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 33\r\n\r\n", "400"},
	{"a content length with a sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", "400"},
	{"a negative content length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", "400"},
	{"a hexadecimal content length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", "400"},
	{"a content length with a space", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello", "400"},
	{"a content length with a point", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello", "400"},
	{"an empty content length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello", "400"},
	{"a content length that overflows", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello", "400"},

	{"a bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", "400"},
	{"a bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "400"},
	{"a bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", "400"},
	{"bare LFs only", "GET / HTTP/1.1\nHost: a\n\n", "400"},
	{"a bare LF before the request", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", "400"},
	{"a bare CR at the end", "GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", "400"},
	{"a bare CR in the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", "400"},
	{"CR CR LF", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "400"},
	{"a fold", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", "400"},
	{"a fold with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", "400"},
	{"a fold before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400"},
	{"a field without a colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "400"},
	{"a field without a name", "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", "400"},
	{"a space in a name", "GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", "400"},
	{"a byte above ASCII in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\xc3: z\r\n\r\n", "400"},
	{"a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\x00z\r\n\r\n", "400"},
	{"a control character in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\x01z\r\n\r\n", "400"},
	{"a DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\x7fz\r\n\r\n", "400"},
	{"a NUL in the target", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a byte above ASCII in the target", "GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a fragment in the target", "GET /#/../b HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"two spaces in the request line", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a space at the end of the request line", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "400"},
	{"a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a method that is none", "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},

	{"no Host", "GET / HTTP/1.1\r\nX: y\r\n\r\n", "400"},
	{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400"},
	{"two Hosts that differ", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
	{"two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
	{"an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "400"},
	{"a list of Hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "400"},
	{"a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400"},
	{"a Host with a user", "GET / HTTP/1.1\r\nHost: b@a\r\n\r\n", "400"},
	{"a Host with a bad port", "GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", "400"},
	{"a Host with a port too great", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", "400"},
	{"a Host of brackets", "GET / HTTP/1.1\r\nHost: []\r\n\r\n", "400"},
	{"a Host that differs from the target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a Host whose port differs from the target", "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a target with a user", "GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a target of another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a target of the other scheme", "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"a target without slashes", "GET http:a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
	{"CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "501"},
	{"an asterisk with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400"},

	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "505"},
	{"HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"},
	{"HTTP/0.9", "GET /\r\n\r\n", "400"},
	{"HTTP/1", "GET / HTTP/1\r\nHost: a\r\n\r\n", "400"},
	{"HTTP/01.1", "GET / HTTP/01.1\r\nHost: a\r\n\r\n", "400"},
	{"http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\n", "400"},

	{"an upgrade with a body", "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello", "400"},
	{"an upgrade with chunks", "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"a Connection that is no token", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close; x\r\n\r\n", "400"},
	{"a Connection that names too much", "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat("x,", 20) + "\r\n\r\n", "400"},
	{"an expectation that is not known", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 0\r\n\r\n", "417"},

	{"a head too large", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", "431"},
	{"too many fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 101) + "\r\n", "431"},
	{"a target too long", "GET /" + strings.Repeat("x", 70<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", "414"},
	{"a method too long", strings.Repeat("X", 70<<10) + " / HTTP/1.1\r\nHost: a\r\n\r\n", "414"},

	{"a chunk with a sign", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\n", "400"},
	{"a chunk with a prefix", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n", "400"},
	{"a chunk that overflows", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n", "400"},
	{"a chunk that LF ends", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\n\r\n", "400"},
	{"an extension that LF ends", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;\nxx\r\n4c\r\n0\r\n\r\n", "400"},
	{"an extension with a CR", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0;\rx\r\n\r\n", "400"},
	{"a chunk longer than its size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", "400"},
	{"an end of chunks with LF", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n", "400"},
	{"a content length in the trailers", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 33\r\n\r\n", "400"},
	{"a transfer coding in the trailers", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", "400"},
}

func TestSmuggling(t *testing.T) {
	for _, c := range smuggling {
		t.Run(c.name, func(t *testing.T) {
			var saw atomic.Bool
			s := serve(t, func(s message.Stream) {
				if string(s.Request().Path) == "/hidden" {
					saw.Store(true)
				}
				echo(s)
			})
			p := s.dial()
			p.say("%s%s", c.text, hidden)
			all, err := io.ReadAll(p.r)
			if err != nil {
				t.Errorf("the answer cannot be read to its end: %v", err)
			}
			got := string(all)
			if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") {
				t.Errorf("answer %q, want status %s", got, c.status)
			}
			if strings.Count(got, "HTTP/1.1 ") != 1 {
				t.Errorf("more than one answer: %q", got)
			}
			if !strings.Contains(got, "connection: close\r\n") {
				t.Errorf("the answer does not end the connection: %q", got)
			}
			_ = p.Close()
			_ = s.result()
			if saw.Load() {
				t.Error("the hidden request was served")
			}
		})
	}
}
