package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// whole parses b, and checks that the same comes out of b when it comes in pieces
// that end with a line, as readHead does it.
func parseTwice(t *testing.T, b []byte) (*message.Request, *head, int, *message.Error) {
	t.Helper()
	parse := func(b []byte) (*message.Request, *head, int, *message.Error) {
		var r message.Request
		var h head
		h.reset()
		n, err := parseRequest(b, &r, &h, 50)
		return &r, &h, n, err
	}
	r, h, n, err := parse(bytes.Clone(b))
	shared := bytes.Clone(b) // parsed over and over in place
	for i := 1; i <= len(b); i++ {
		if b[i-1] != '\n' && i < len(b) {
			continue
		}
		part, _, m, bad := parse(shared[:i])
		if m > 0 || bad != nil {
			if bad != nil && err == nil {
				t.Fatalf("the first %d bytes are refused, all of it is not: %v", i, bad)
			}
			if bad == nil && err == nil && (m != n || show(part) != show(r)) {
				t.Fatalf("in pieces %d %s\nat once   %d %s", m, show(part), n, show(r))
			}
			break
		}
	}
	return r, h, n, err
}

func FuzzRequest(f *testing.F) {
	for _, c := range accepted {
		f.Add([]byte(c.text))
	}
	for _, c := range smuggling {
		if len(c.text) < 1000 {
			f.Add([]byte(c.text))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, h, n, err := parseTwice(t, b)
		if err != nil || n == 0 {
			return
		}
		if n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		sameAsNetHTTP(t, b, r, h)
		if len(r.Authority) == 0 {
			return // HTTP/1.0; what is sent is HTTP/1.1
		}
		// What is sent on is read as the same.
		again, bad := appendRequestHead(nil, r)
		if bad != nil {
			t.Fatalf("cannot be written: %v", bad)
		}
		again = append(appendFraming(again, int64(r.Length)), "\r\n"...)
		var r2 message.Request
		var h2 head
		h2.reset()
		if n, err := parseRequest(bytes.Clone(again), &r2, &h2, 50); err != nil || n != len(again) {
			t.Fatalf("%q\nis refused when sent on as\n%q: %v", b, again, err)
		}
		r2.HTTP10, r2.Expect100 = r.HTTP10, r.Expect100
		if r.Upgrade != nil {
			r2.Trailers = r.Trailers
		}
		if show(r) != show(&r2) {
			t.Fatalf("read %s\nsent %s", show(r), show(&r2))
		}
	})
}

func appendFraming(b []byte, length int64) []byte {
	switch {
	case length > 0:
		return appendLength(b, length)
	case length < 0:
		return append(b, "transfer-encoding: chunked\r\n"...)
	}
	return b
}

// sameAsNetHTTP has net/http read the same bytes: where it accepts them, it must
// see the same request.
func sameAsNetHTTP(t *testing.T, b []byte, r *message.Request, h *head) {
	t.Helper()
	b = bytes.TrimPrefix(b, []byte("\r\n"))
	other, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return
	}
	length := int64(r.Length)
	if other.ContentLength != length || (len(other.TransferEncoding) > 0) != h.chunked {
		t.Fatalf("length %d, net/http %d %v", length, other.ContentLength, other.TransferEncoding)
	}
	if other.Method != string(r.Method) || !strings.EqualFold(other.Host, string(r.Authority)) ||
		other.RequestURI[0] == '/' && other.RequestURI != string(r.Path) {
		t.Fatalf("read %s, net/http %s %s %s", show(r), other.Method, other.Host, other.RequestURI)
	}
	for _, f := range r.Fields {
		found := false
		for name, values := range other.Header {
			for _, v := range values {
				found = found || strings.EqualFold(name, string(f.Name)) && v == string(f.Value)
			}
		}
		if !found {
			t.Fatalf("%s: %q, net/http %q", f.Name, f.Value, other.Header)
		}
	}
}

func FuzzResponse(f *testing.F) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nConnection: close, x\r\nX: y\r\n\r\n",
		"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, method := range []string{"GET", "HEAD"} {
			a := asked{head: method == "HEAD"}
			var r message.Response
			var h head
			h.reset()
			n, http10, err := parseResponse(bytes.Clone(b), &r, &h, &a, 50)
			if err != nil || n == 0 {
				continue
			}
			if r.Upgrade || r.Status < 100 || n > len(b) {
				t.Fatalf("status %d, upgrade %v, %d of %d bytes", r.Status, r.Upgrade, n, len(b))
			}
			other, bad := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: method})
			if bad == nil {
				length := int64(r.Length)
				if a.bodyless(r.Status) {
					// net/http has 0 or what is said for these.
				} else if other.ContentLength != length || (len(other.TransferEncoding) > 0) != h.chunked {
					t.Fatalf("%s: length %d, net/http %d %v", method, length, other.ContentLength, other.TransferEncoding)
				}
				if other.StatusCode != r.Status {
					t.Fatalf("status %d, net/http %d", r.Status, other.StatusCode)
				}
			}
			// What is sent on is read as the same.
			again, _, bad := appendFields(appendStatusLine(nil, r.Status), r.Fields)
			if bad != nil {
				t.Fatalf("cannot be written: %v", bad)
			}
			if a.bodyless(r.Status) {
				again = appendFraming(again, max(0, int64(r.Length)))
			} else if r.Length == 0 {
				again = appendLength(again, 0)
			} else if r.Length > 0 || h.chunked {
				again = appendFraming(again, int64(r.Length))
			}
			if !h.persistent(http10) {
				again = append(again, "connection: close\r\n"...)
			}
			again = append(again, "\r\n"...)
			var r2 message.Response
			var h2 head
			h2.reset()
			n, _, err = parseResponse(bytes.Clone(again), &r2, &h2, &a, 50)
			if a.bodyless(r.Status) {
				h2.chunked = h.chunked
			}
			if err != nil || n != len(again) || showResponse(&r, &h, http10) != showResponse(&r2, &h2, false) {
				t.Fatalf("read %s\nsent %s\n%q: %v", showResponse(&r, &h, http10), showResponse(&r2, &h2, false), again, err)
			}
		}
	})
}

func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nT: 1\r\n\r\nnext"))
	f.Fuzz(func(t *testing.T, b []byte) {
		text := string(b)
		data, trailers, rest, err := dechunk(text, len(text)+1)
		for _, step := range []int{1, 3} {
			d, tr, n, e := dechunk(text, step)
			if (e == nil) != (err == nil) || e == nil && (d != data || tr != trailers || n != rest) {
				t.Fatalf("by %d: %q %q %d %v\nat once: %q %q %d %v", step, d, tr, n, e, data, trailers, rest, err)
			}
		}
		if err != nil || rest < 0 {
			return
		}
		other, bad := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(text)))
		if bad == nil && string(other) != data {
			t.Fatalf("data %q, net/http %q", data, other)
		}
		// What is sent on is read as the same.
		again := ""
		for i := 0; i < len(data); i += 10 {
			part := data[i:min(i+10, len(data))]
			again += strconv.FormatInt(int64(len(part)), 16) + "\r\n" + part + "\r\n"
		}
		if d, _, n, err := dechunk(again+"0\r\n\r\n", 5); d != data || n != 0 || err != nil {
			t.Fatalf("%q: %q, %d, %v", again, d, n, err)
		}
	})
}
