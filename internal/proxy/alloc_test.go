//go:build !race

package proxy

import (
	"net"
	"testing"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// rawBackend answers each request on a connection with the same bytes, and
// allocates nothing.
func rawBackend(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf, out := make([]byte, 4096), []byte(answer)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestRequestAllocatesNothing(t *testing.T) {
	answer := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"
	w := newWorld(t, Config{})
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{httpListener(""), httpListener("*.example.com")},
		Routes:    []model.Route{routeTo("r", "a")},
		Upstreams: []model.Upstream{service("a", rawBackend(t, answer), rawBackend(t, answer))},
	})
	c, err := net.Dial("tcp", w.addr(80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request := []byte("GET /a/b?c=d HTTP/1.1\r\nHost: test\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n")
	buf := make([]byte, 4096)
	got := testing.AllocsPerRun(2000, func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(buf); err != nil || n < 100 || string(buf[n-6:n]) != "World!" {
			t.Fatalf("%q %v", buf[:n], err)
		}
	})
	if got != 0 {
		t.Errorf("a request allocates %v times", got)
	}
}
