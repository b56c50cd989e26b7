package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// openTunnel upgrades a connection of HTTP/1.1.
func openTunnel(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("got %v, %v", res, err)
	}
	return c, r
}

// echoes tells whether a tunnel carries bytes both ways.
func echoes(c net.Conn, r *bufio.Reader) error {
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	var got [4]byte
	if _, err := io.ReadFull(r, got[:]); err != nil {
		return err
	}
	if string(got[:]) != "ping" {
		return errors.New("got " + string(got[:]))
	}
	return nil
}

// idleClient is a connection that has had its answer: it ends when a drain begins.
func idleClient(t *testing.T, addr string) (*http.Response, net.Conn) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	return res, c
}

// TestTunnelOutlivesTheBeginningOfADrain holds that a WebSocket goes on until
// DrainTimeout, while idle connections of the same listener end.
func TestTunnelOutlivesTheBeginningOfADrain(t *testing.T) {
	for _, c := range []struct {
		name  string
		begin func(*world)
	}{
		{"the listener goes", func(w *world) {
			w.apply(driver.GatewayBatch{DeleteListeners: []model.ListenerID{httpListener("").ID}})
		}},
		{"the engine drains", func(w *world) {
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.engine.Drain(ctx)
			}()
			w.t.Cleanup(func() { cancel(); <-done })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := simple(t, upgraded)
			tunnel, r := openTunnel(t, w.addr(80))
			_, idle := idleClient(t, w.addr(80))
			c.begin(w)
			// When the idle one has ended, the tunnel was told too.
			if n, err := idle.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("the idle connection: %d bytes, %v", n, err)
			}
			for range 3 {
				if err := echoes(tunnel, r); err != nil {
					t.Fatalf("the tunnel broke: %v", err)
				}
			}
		})
	}
}

// TestTunnelEndsWithDrainTimeout holds that it does end then.
func TestTunnelEndsWithDrainTimeout(t *testing.T) {
	w := newWorld(t, Config{})
	l := httpListener("")
	l.Policy.DrainTimeout = 50 * time.Millisecond
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{l}, Routes: []model.Route{routeTo("r", "a")}, Upstreams: []model.Upstream{service("a", backendServer(t, upgraded))},
	})
	tunnel, r := openTunnel(t, w.addr(80))
	if err := echoes(tunnel, r); err != nil {
		t.Fatal(err)
	}
	w.apply(driver.GatewayBatch{DeleteListeners: []model.ListenerID{l.ID}})
	var timeout net.Error
	if _, err := r.ReadByte(); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the tunnel goes on: %v", err)
	}
	eventually(t, "the tunnel ends", func() bool { return w.engine.exchanges.inFlight() == 0 })
}

// TestRelayOutlivesTheBeginningOfADrain is the same for a TCP listener.
func TestRelayOutlivesTheBeginningOfADrain(t *testing.T) {
	w := newWorld(t, Config{})
	l := model.Listener{ID: model.ListenerID{Gateway: gateway, Name: "tcp"}, Port: 5432, Protocol: model.ListenTCP, Policy: &model.ListenerPolicy{}}
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{l}, Routes: []model.Route{streamRoute(model.TCPRoute, "r", "a", l, "")},
		Upstreams: []model.Upstream{service("a", lineServer(t, "one"))},
	})
	c, err := net.Dial("tcp", w.addr(5432))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(c)
	if name, err := r.ReadString(':'); name != "one:" {
		t.Fatalf("got %q, %v", name, err)
	}
	w.apply(driver.GatewayBatch{DeleteListeners: []model.ListenerID{l.ID}})
	for range 3 {
		if err := echoes(c, r); err != nil {
			t.Fatalf("the relay broke: %v", err)
		}
	}
}

// TestHTTP2SwitchedOff holds that a client which speaks it all the same has an
// answer, and that nothing of its connection stays.
func TestHTTP2SwitchedOff(t *testing.T) {
	w := newWorld(t, Config{})
	l := httpListener("")
	l.Policy.DisableHTTP2 = true
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{l}, Routes: []model.Route{routeTo("r", "a")}, Upstreams: []model.Upstream{service("a", backendServer(t, named("a")))},
	})
	c, err := net.Dial("tcp", w.addr(80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	answer, err := io.ReadAll(c)
	if want := "HTTP/1.1 505 "; err != nil || len(answer) < len(want) || string(answer[:len(want)]) != want {
		t.Errorf("got %q, %v", answer, err)
	}
	eventually(t, "the connection is forgotten", func() bool {
		s, _ := w.engine.Listener(l.ID)
		return s.Connections == 0
	})
	if res, _ := get(t, w.url("/")); res.StatusCode != 200 {
		t.Errorf("HTTP/1.1: got %d", res.StatusCode)
	}
}

// rawRequest sends bytes and returns the status of the answer.
func rawRequest(t *testing.T, addr, text string) (net.Conn, int) {
	t.Helper()
	c := slowHead(t, addr, text)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, res.StatusCode
}
