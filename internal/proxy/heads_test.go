package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// slowHead begins a request and does not end it.
func slowHead(t *testing.T, addr, begin string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, begin); err != nil {
		t.Fatal(err)
	}
	return c
}

// worldWithHeads has a bound of n bytes for heads that come slowly.
func worldWithHeads(t *testing.T, n int64) *world {
	w := newWorld(t, Config{HeadMemory: n})
	l := httpListener("")
	l.Policy.HeaderTimeout = time.Minute
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{l}, Routes: []model.Route{routeTo("r", "a")}, Upstreams: []model.Upstream{service("a", backendServer(t, named("a")))},
	})
	return w
}

// TestSlowHeadsOfAllConnectionsAreBounded holds that a flood of slow heads takes
// no more memory than HeadMemory, and nothing from clients whose heads come whole.
func TestSlowHeadsOfAllConnectionsAreBounded(t *testing.T) {
	w := worldWithHeads(t, 16<<10) // four heads of 4 KiB
	const begin = "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "
	var slow []net.Conn
	for i := range 4 {
		slow = append(slow, slowHead(t, w.addr(80), begin))
		eventually(t, "the head is counted", func() bool { return w.engine.heads.Used() == int64(i+1)*4<<10 })
	}
	for range 3 {
		c := slowHead(t, w.addr(80), begin)
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 503 || !res.Close {
			t.Fatalf("above the bound: got %v, %v", res, err)
		}
		if res, _ := get(t, w.url("/")); res.StatusCode != 200 {
			t.Errorf("a whole head got %d", res.StatusCode)
		}
	}
	// Those that are within the bound are served when they end.
	for _, c := range slow {
		io.WriteString(c, "x\r\n\r\n")
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 200 {
			t.Errorf("a slow head got %v, %v", res, err)
		}
	}
	eventually(t, "nothing is counted any more", func() bool { return w.engine.heads.Used() == 0 })
	// A client that leaves gives back what it had, of a head that had grown too.
	long := slowHead(t, w.addr(80), begin+fmt.Sprintf("%06000d", 0))
	eventually(t, "a long head is counted", func() bool { return w.engine.heads.Used() > 4<<10 })
	long.Close()
	eventually(t, "it is given back", func() bool { return w.engine.heads.Used() == 0 })
}

// TestSlowHeadsOfHTTP2AreBounded is the same for header blocks in part.
func TestSlowHeadsOfHTTP2AreBounded(t *testing.T) {
	w := worldWithHeads(t, 64<<10)
	begin := func() (net.Conn, *xhttp2.Framer) {
		c := slowHead(t, w.addr(80), xhttp2.ClientPreface)
		f := xhttp2.NewFramer(c, c)
		if err := f.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		if err := f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82, 0x84}}); err != nil {
			t.Fatal(err)
		}
		return c, f
	}
	var slow []net.Conn
	refused := false
	for len(slow) < 100 && !refused {
		used := w.engine.heads.Used()
		c, f := begin()
		slow = append(slow, c)
		eventually(t, "the block is counted, or refused", func() bool {
			c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			frame, err := f.ReadFrame()
			if g, ok := frame.(*xhttp2.GoAwayFrame); err == nil && ok {
				refused = g.ErrCode == xhttp2.ErrCodeEnhanceYourCalm
			}
			return refused || w.engine.heads.Used() > used
		})
	}
	if !refused {
		t.Fatalf("%d blocks in part were taken, of %d bytes", len(slow), w.engine.heads.Used())
	}
	if used := w.engine.heads.Used(); used > 64<<10 {
		t.Errorf("%d bytes are used", used)
	}
	for _, c := range slow {
		c.Close()
	}
	eventually(t, "all is given back", func() bool { return w.engine.heads.Used() == 0 })
}
