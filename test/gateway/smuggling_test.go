package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// hidden is the request that an attack tries to bring in.
const hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"

// post begins the head of most attacks.
const post = "POST / HTTP/1.1\r\nHost: a\r\n"

// refused are requests that two servers might read in two ways. Each is sent with
// hidden after it.
var refused = []struct{ name, text string }{
	{"CL.TE", post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX"},
	{"TE.CL", post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n21\r\n" + hidden + "\r\n0\r\n\r\n"},
	{"TE.TE, two fields", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"TE.TE, the second unknown", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n"},
	{"TE.TE, the first unknown", post + "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"TE.TE, identity after chunked", post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
	{"TE.TE, xchunked", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
	{"TE.TE, a vertical tab", post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"},
	{"TE.TE, a space before the colon", post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
	{"TE.TE, a space before the name", post + " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"TE.TE, a fold", post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"},
	{"TE.TE, behind a bare LF", post + "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"TE.TE, behind a bare CR", post + "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"TE.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},

	{"two content lengths", post + "Content-Length: 0\r\nContent-Length: 33\r\n\r\n"},
	{"two equal content lengths", post + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n"},
	{"a list of content lengths", post + "Content-Length: 0, 33\r\n\r\n"},
	{"a content length with a sign", post + "Content-Length: +5\r\n\r\nhello"},
	{"a hexadecimal content length", post + "Content-Length: 0x5\r\n\r\nhello"},
	{"a content length that overflows", post + "Content-Length: 18446744073709551621\r\n\r\nhello"},
	{"an empty content length", post + "Content-Length:\r\n\r\nhello"},

	{"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"},
	{"bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"},
	{"bare LF at the end of the head", "GET / HTTP/1.1\r\nHost: a\r\n\n"},
	{"bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n"},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\x00z\r\n\r\n"},
	{"obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"},
	{"obs-fold with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n"},
	{"obs-fold before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},

	{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
	{"two equal Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
	{"no Host", "GET / HTTP/1.1\r\nX: y\r\n\r\n"},
	{"a Host that differs from the target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
	{"a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"a request inside the target", "GET /a HTTP/1.1\rX:y HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"HTTP/0.9", "GET /\r\n\r\n"},
	{"an upgrade with a body", post + "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 33\r\n\r\n"},
}

// brokenBodies have a head like any other, which may have gone on by the time the
// body turns out to be broken: then the backend must not take the request as whole.
var brokenBodies = []struct{ name, text string }{
	{"a chunk with a sign", "+1\r\nx\r\n0\r\n\r\n"},
	{"a chunk with a prefix", "0x1\r\nx\r\n0\r\n\r\n"},
	{"a chunk that overflows", "10000000000000001\r\nx\r\n0\r\n\r\n"},
	{"a chunk that a bare LF ends", "1\nx\r\n0\r\n\r\n"},
	{"data that a bare LF ends", "1\r\nx\n0\r\n\r\n"},
	{"an extension that a bare LF ends", "1;a\nx\r\n0\r\n\r\n"},
	{"an extension with a bare CR", "1;a\rb\r\nx\r\n0\r\n\r\n"},
	{"a chunk longer than its size", "1\r\nxyz\r\n0\r\n\r\n"},
	{"an end with a bare LF", "1\r\nx\r\n0\r\n\n"},
	{"a negative size", "-1\r\nx\r\n0\r\n\r\n"},
	{"a space before the size", " 1\r\nx\r\n0\r\n\r\n"},
	{"a content length in the trailers", "1\r\nx\r\n0\r\nContent-Length: 33\r\n\r\n"},
	{"a transfer coding in the trailers", "1\r\nx\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"},
	{"a bare LF in the trailers", "1\r\nx\r\n0\r\nA: b\nC: d\r\n\r\n"},
}

// reframed are requests that are right, however odd: the backend gets them in
// plain framing, and what is inside bodies stays there.
var reframed = []struct{ name, text string }{
	{"a request inside a body", post + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(hidden), hidden)},
	{"a request inside a chunk", post + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden)},
	{"chunk extensions", post + "Transfer-Encoding: chunked\r\n\r\n1;a=b;c\r\nx\r\n0;d=\"e f\"\r\n\r\n"},
	{"leading zeros of a chunk", post + "Transfer-Encoding: chunked\r\n\r\n0001\r\nx\r\n000\r\n\r\n"},
	{"chunked in capitals", post + "TRANSFER-ENCODING: CHUNKED\r\n\r\n1\r\nx\r\n0\r\n\r\n"},
	{"spaces around the coding", post + "Transfer-Encoding: \t chunked \t\r\n\r\n1\r\nx\r\n0\r\n\r\n"},
	{"Connection that names the framing", post + "Connection: transfer-encoding, content-length\r\nContent-Length: 33\r\n\r\n" + strings.Repeat("x", 33)},
	{"Connection that names Host", "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n"},
}

// exchange sends text on a connection of its own and returns all that comes back.
func exchange(t *testing.T, addr, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("the connection does not end: %v", err)
	}
	return string(answer)
}

// wantSound checks that the proxy is sound after an attack: the next client gets
// its own answer, by a request that the backend saw as one.
func wantSound(t *testing.T, e *engine, b *recorder) {
	t.Helper()
	answer := exchange(t, e.plain, "GET /canary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 200 ") || strings.Count(answer, "HTTP/1.1 ") != 1 {
		t.Errorf("the next client got %q", answer)
	}
	_, heads, _ := b.seen()
	if !slices.ContainsFunc(heads, func(h string) bool { return strings.HasPrefix(h, "GET /canary HTTP/1.1\r\n") }) {
		t.Errorf("the backend saw %q", heads)
	}
	for _, h := range heads {
		if first, _, _ := strings.Cut(h, "\r\n"); strings.Contains(first, "hidden") {
			t.Errorf("the hidden request is at the backend: %q", heads)
		}
	}
}

func wantRefused(t *testing.T, answer string) {
	t.Helper()
	if !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.1 5") || strings.Count(answer, "HTTP/1.1 ") != 1 {
		t.Errorf("the answer is %q", answer)
	}
}

func TestSmugglingIsRefused(t *testing.T) {
	for _, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			b := startRecorder(t)
			e := startEngine(t, b.addr, model.HTTPRoute, model.UpstreamHTTP1)
			wantRefused(t, exchange(t, e.plain, c.text+hidden))
			if all, _, _ := b.seen(); all != "" {
				t.Errorf("the backend got %q", all)
			}
			wantSound(t, e, b)
		})
	}
}

func TestBrokenChunksEndNoRequest(t *testing.T) {
	for _, c := range brokenBodies {
		t.Run(c.name, func(t *testing.T) {
			b := startRecorder(t)
			e := startEngine(t, b.addr, model.HTTPRoute, model.UpstreamHTTP1)
			wantRefused(t, exchange(t, e.plain, post+"Transfer-Encoding: chunked\r\n\r\n"+c.text+hidden))
			wantSound(t, e, b)
			if all, _, whole := b.seen(); whole != 1 { // the canary
				t.Errorf("the backend took %d requests as whole: %q", whole, all)
			}
		})
	}
}

func TestOddFramingGoesOnPlain(t *testing.T) {
	for _, c := range reframed {
		t.Run(c.name, func(t *testing.T) {
			b := startRecorder(t)
			e := startEngine(t, b.addr, model.HTTPRoute, model.UpstreamHTTP1)
			answer := exchange(t, e.plain, c.text+"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			if strings.Count(answer, "HTTP/1.1 200 ") != 2 || strings.Count(answer, "HTTP/1.1 ") != 2 {
				t.Errorf("the answers are %q", answer)
			}
			wantSound(t, e, b)
			all, heads, whole := b.seen()
			if len(heads) != 3 || whole != 3 || !strings.HasPrefix(heads[1], "GET /next ") {
				t.Fatalf("the backend saw %d requests: %q", len(heads), all)
			}
			head := strings.ToLower(heads[0])
			if strings.Count(head, "\nhost: a\r\n") != 1 {
				t.Errorf("the backend has not one Host: %q", heads[0])
			}
			framings := strings.Count(head, "\ntransfer-encoding: chunked\r\n") + strings.Count(head, "\ncontent-length: ")
			if want := min(1, strings.Count(c.text, "POST")); framings != want || strings.Contains(all, ";") || strings.Contains(all, "\n000") {
				t.Errorf("the backend has %d framings, want %d: %q", framings, want, all)
			}
		})
	}
}

// TestSmuggledResponses has a backend whose responses two clients might read in
// two ways.
func TestSmuggledResponses(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for name, text := range map[string]string{
		"CL.TE":                         "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
		"two content lengths":           "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n" + evil,
		"bare LF":                       "HTTP/1.1 200 OK\nContent-Length: 0\n\n" + evil,
		"obs-fold":                      "HTTP/1.1 200 OK\r\nX: y\r\n Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + evil,
		"a space before the colon":      "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n" + evil,
		"a coding that is unknown":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + evil,
		"a switch that was not asked":   "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" + evil,
		"a content length with a sign":  "HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n" + evil,
		"CR in a value":                 "HTTP/1.1 200 OK\r\nX: y\rz\r\nContent-Length: 0\r\n\r\n" + evil,
		"NUL in a value":                "HTTP/1.1 200 OK\r\nX: y\x00\r\nContent-Length: 0\r\n\r\n" + evil,
		"a status of two digits":        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n" + evil,
		"no HTTP":                       "SSH-2.0-x\r\n" + evil,
		"a response before the request": evil,
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					panic(err)
				}
				if r.URL.Path != "/attack" {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
				} else if name == "a response before the request" {
					// The second response lies there when the next request comes.
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"+text)
				} else {
					io.WriteString(c, text)
				}
				// It ends when the proxy ends it.
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			})}
			go func() { _ = s.Serve(l) }()
			t.Cleanup(func() { s.Close() })
			e := startEngine(t, l.Addr().String(), model.HTTPRoute, model.UpstreamHTTP1)
			answer := exchange(t, e.plain, "GET /attack HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			if strings.Contains(answer, "evil") || strings.Count(answer, "HTTP/1.1 ") != 1 {
				t.Errorf("the attack got %q", answer)
			}
			if name != "a response before the request" && !strings.HasPrefix(answer, "HTTP/1.1 502 ") {
				t.Errorf("the attack got %q", answer)
			}
			answer = exchange(t, e.plain, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			if !strings.HasSuffix(answer, "\r\n\r\ngood") {
				t.Errorf("the next client got %q", answer)
			}
		})
	}
}
