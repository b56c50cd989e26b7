package proxy

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func webSocketEcho(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"test"}})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for {
		kind, p, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, p); err != nil {
			return
		}
	}
}

func TestWebSocket(t *testing.T) {
	w := simple(t, webSocketEcho)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, res, err := websocket.Dial(ctx, "ws://"+w.addr(80)+"/", &websocket.DialOptions{Subprotocols: []string{"test"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if res.StatusCode != 101 || c.Subprotocol() != "test" {
		t.Errorf("got %d %q", res.StatusCode, c.Subprotocol())
	}
	c.SetReadLimit(1 << 20)
	for _, size := range []int{1, 200, 100 << 10} {
		want := strings.Repeat("w", size)
		if err := c.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != want {
			t.Fatalf("%d bytes: got %d, %v", size, len(got), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
	eventually(t, "the tunnel ends", func() bool { return w.engine.exchanges.inFlight() == 0 })
	s, _ := w.engine.Upstream(upstreamID("a"))
	if s.Endpoints[0].Requests != 0 || s.Endpoints[0].Connections != 0 {
		t.Errorf("left: %+v", s.Endpoints[0])
	}
}

func TestWebSocketRefused(t *testing.T) {
	w := simple(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if c, res, err := websocket.Dial(ctx, "ws://"+w.addr(80)+"/", nil); err == nil {
		c.CloseNow()
		t.Error("the connection was upgraded")
	} else if res == nil || res.StatusCode != 403 {
		t.Errorf("got %v, %v", res, err)
	}
}
