//go:build !race

package http2

import (
	"context"
	"io"
	"testing"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// TestNoAllocations sends requests through a client and a server, with and without
// bodies. Both are in what is counted.
func TestNoAllocations(t *testing.T) {
	fields := []message.Field{field("content-type", "text/plain"), field("server", "test"), field("x-request-id", "0123456789")}
	body := make([]byte, 1000)
	head := message.Response{Status: 200, Fields: fields, Length: 1000}
	got := make([]byte, 2000)
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		for {
			if _, err := s.ReadBody(got); err != nil {
				break
			}
		}
		_ = s.WriteHead(&head, false)
		_ = s.WriteBody(body, true)
	})
	conn := dialClient(t, s.addr, ClientConfig{})
	get := newRequest("GET", "/some/path", field("user-agent", "test/1.0"), field("accept", "*/*"), field("cookie", "a=b"))
	post := newRequest("POST", "/some/path", field("user-agent", "test/1.0"), field("content-type", "text/plain"))
	post.Length = 1000
	var r message.Response
	p := make([]byte, 2000)
	ctx := context.Background()
	for name, req := range map[string]*message.Request{"GET": get, "POST": post} {
		once := func() {
			call, err := conn.Open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := call.Send(req, req == get); err != nil {
				t.Fatal(err)
			}
			if req == post {
				if err := call.WriteBody(body, true); err != nil {
					t.Fatal(err)
				}
			}
			if err := call.Receive(&r); err != nil || r.Status != 200 {
				t.Fatal(r.Status, err)
			}
			n := 0
			for {
				m, err := call.ReadBody(p)
				n += m
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if n != len(body) {
				t.Fatalf("%d bytes", n)
			}
			call.Close()
		}
		for range 200 {
			once()
		}
		// The pools are emptied by the garbage collector now and then.
		if got := testing.AllocsPerRun(2000, once); got >= 1 {
			t.Errorf("%s: %v allocations a request", name, got)
		}
	}
}
