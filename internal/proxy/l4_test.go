package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// streamRoute sends what a listener gets to a Service.
func streamRoute(kind model.RouteKind, name, backend string, l model.Listener, hosts ...string) model.Route {
	r := attach(name, backend, l, hosts...)
	r.ID.Kind = kind
	r.Rules[0].Matches = nil
	return r
}

// lineServer answers each connection with its name and what it sent.
func lineServer(t *testing.T, name string) string {
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
				io.WriteString(c, name+":")
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func talk(t *testing.T, c net.Conn, say string) string {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestTCPRoute(t *testing.T) {
	w := newWorld(t, Config{})
	l := model.Listener{ID: model.ListenerID{Gateway: gateway, Name: "tcp"}, Port: 5432, Protocol: model.ListenTCP, Policy: &model.ListenerPolicy{}}
	r := streamRoute(model.TCPRoute, "r", "a", l, "")
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{l}, Routes: []model.Route{r},
		Upstreams: []model.Upstream{service("a", deadAddr(t), lineServer(t, "one"))},
	})
	for range 4 {
		c, err := net.Dial("tcp", w.addr(5432))
		if err != nil {
			t.Fatal(err)
		}
		if got := talk(t, c, "hello"); got != "one:hello" {
			t.Errorf("got %q", got)
		}
	}
	if s, _ := w.engine.Route(r.ID); len(s.Requests) != 1 || s.Requests[0] != 4 {
		t.Errorf("state %+v", s)
	}
	eventually(t, "no connection is left", func() bool {
		s, _ := w.engine.Upstream(upstreamID("a"))
		return s.Endpoints[0].Connections+s.Endpoints[1].Connections == 0
	})
}

func TestTLSRoutes(t *testing.T) {
	ca := newAuthority(t)
	chain, key := ca.issue(t, "", "pass.example.com")
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	behind, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { behind.Close() })
	go func() {
		for {
			c, err := behind.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, "behind:")
				io.Copy(c, c)
			}()
		}
	}()
	pass := model.Listener{
		ID: model.ListenerID{Gateway: gateway, Name: "pass"}, Port: 443, Protocol: model.ListenTLS, Hostname: "pass.example.com",
		TLS: &model.ListenerTLS{Passthrough: true}, Policy: &model.ListenerPolicy{},
	}
	term := httpsListener("term", "term.example.com", "cert")
	term.Protocol = model.ListenTLS
	w := newWorld(t, Config{})
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{pass, term},
		Routes: []model.Route{
			streamRoute(model.TLSRoute, "pass", "a", pass, "pass.example.com"), streamRoute(model.TLSRoute, "term", "b", term, "term.example.com"),
		},
		Upstreams:    []model.Upstream{service("a", behind.Addr().String()), service("b", lineServer(t, "plain"))},
		Certificates: []model.Certificate{ca.secret(t, "cert", "term.example.com")},
	})
	for name, want := range map[string]string{"pass.example.com": "behind:hi", "term.example.com": "plain:hi"} {
		c, err := tls.Dial("tcp", w.addr(443), &tls.Config{RootCAs: ca.pool(), ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		if got := talk(t, c, "hi"); got != want {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if c, err := tls.Dial("tcp", w.addr(443), &tls.Config{RootCAs: ca.pool(), ServerName: "other.example.com"}); err == nil {
		c.Close()
		t.Error("a name of no listener was served")
	}
}

func TestUDPRoute(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(append([]byte("re:"), buf[:n]...), from)
		}
	}()
	w := newWorld(t, Config{})
	l := model.Listener{ID: model.ListenerID{Gateway: gateway, Name: "udp"}, Port: 53, Protocol: model.ListenUDP, Policy: &model.ListenerPolicy{}}
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{l}, Routes: []model.Route{streamRoute(model.UDPRoute, "r", "a", l, "")},
		Upstreams: []model.Upstream{service("a", server.LocalAddr().String())},
	})
	w.sockets.mu.Lock()
	addr := w.sockets.addrs["udp53"]
	w.sockets.mu.Unlock()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 2048)
	eventually(t, "an answer", func() bool {
		c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Write([]byte("ping")); err != nil {
			return false
		}
		n, err := c.Read(buf)
		return err == nil && string(buf[:n]) == "re:ping"
	})
}
