package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
)

func TestProxyHeaderToUpstreams(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	lines := make(chan string, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				lines <- line
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					req.Body.Close()
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			}()
		}
	}()
	u := service("a", l.Addr().String())
	u.Policy = &model.UpstreamPolicy{SendProxyHeader: 1}
	w := worldOf(t, u)
	for range 2 { // each has a connection of its own, which tells of its client
		if res, _ := get(t, w.url("/")); res.StatusCode != 200 {
			t.Fatalf("got %d", res.StatusCode)
		}
		if line := <-lines; !strings.HasPrefix(line, "PROXY TCP4 127.0.0.1 127.0.0.1 ") || !strings.HasSuffix(line, "\r\n") {
			t.Errorf("got %q", line)
		}
	}
}
