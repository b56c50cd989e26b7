package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/fairwaynet/fairway/internal/proxy/http2"
	"github.com/fairwaynet/fairway/internal/proxy/message"
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

// upgraded answers an upgrade as a WebSocket server does, and then echoes bytes.
func upgraded(w http.ResponseWriter, r *http.Request) {
	if r.Method != "GET" || r.Header.Get("Upgrade") != "websocket" || len(r.Header.Get("Sec-Websocket-Key")) != 24 {
		http.Error(w, "no upgrade", 400)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer c.Close()
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
	io.Copy(c, rw)
}

func TestWebSocketFromHTTP2ToHTTP1(t *testing.T) {
	w := simple(t, upgraded)
	conn, err := net.Dial("tcp", w.addr(80))
	if err != nil {
		t.Fatal(err)
	}
	client := http2.NewClientConn(conn, http2.ClientConfig{})
	defer client.Close()
	call, err := client.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	call.SetDeadline(time.Now().Add(time.Minute))
	if err := call.Send(&message.Request{
		Method: []byte("CONNECT"), Scheme: []byte("http"), Authority: []byte("x"), Path: []byte("/chat"), Upgrade: []byte("websocket"), Length: message.UnknownLength,
	}, true); err != nil {
		t.Fatal(err)
	}
	var res message.Response
	if err := call.Receive(&res); err != nil {
		t.Fatal(err)
	}
	if _, ok := message.GetName(res.Fields, "sec-websocket-accept"); res.Status != 200 || !res.Upgrade || ok {
		t.Fatalf("got %+v", res)
	}
	tunnel, err := call.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	for _, say := range []string{"hello", "again"} {
		if _, err := io.WriteString(tunnel, say); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(say))
		if _, err := io.ReadFull(tunnel, got); err != nil || string(got) != say {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	tunnel.Close()
	eventually(t, "the tunnel ends", func() bool { return w.engine.exchanges.inFlight() == 0 })
}
