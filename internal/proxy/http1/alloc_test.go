//go:build !race

package http1

import (
	"bytes"
	"testing"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

func none(t *testing.T, what string, f func()) {
	t.Helper()
	f()
	if n := testing.AllocsPerRun(200, f); n > 0 {
		t.Errorf("%s: %v allocations", what, n)
	}
}

func TestHeadAllocations(t *testing.T) {
	var r message.Request
	var p message.Response
	var h head
	var a asked
	in, out, b := []byte(browser), []byte(fromBackend), make([]byte, 0, 4096)
	none(t, "a request's head", func() {
		r.Reset()
		h.reset()
		if n, err := parseRequest(in, &r, &h, 100); n != len(in) || err != nil {
			t.Fatal(n, err)
		}
	})
	none(t, "a response's head", func() {
		p.Reset()
		h.reset()
		if n, _, err := parseResponse(out, &p, &h, &a, 100); n != len(out) || err != nil {
			t.Fatal(n, err)
		}
	})
	none(t, "writing a request's head", func() {
		if _, err := appendRequestHead(b, &r); err != nil {
			t.Fatal(err)
		}
	})
	none(t, "writing a response's head", func() {
		if _, _, err := appendFields(appendStatusLine(b, p.Status), p.Fields); err != nil {
			t.Fatal(err)
		}
	})
}

// TestProxyAllocations sends requests through a server and a client connection, on
// sockets.
func TestProxyAllocations(t *testing.T) {
	front, stop := startChain(t)
	defer stop()
	want := make([]byte, len(fromBackend)+200)
	request := []byte(browser)
	n := 0
	none(t, "a request that is proxied", func() {
		if _, err := front.Write(request); err != nil {
			t.Fatal(err)
		}
		n = 0
		for !bytes.HasSuffix(want[:n], []byte("hello, world!")) {
			m, err := front.Read(want[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
	})
	if !bytes.HasPrefix(want, []byte("HTTP/1.1 200 OK\r\nserver: nginx\r\n")) {
		t.Errorf("%q", want[:n])
	}
}
