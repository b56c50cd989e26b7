package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// TestWaitForAStream holds that requests above what all connections of HTTP/2 take
// wait, as those of HTTP/1.1 do.
func TestWaitForAStream(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Millisecond) }))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 2}
	s.Start()
	t.Cleanup(s.Close)
	u := service("a", s.Listener.Addr().String())
	u.Protocol, u.Policy = model.UpstreamH2C, &model.UpstreamPolicy{MaxConnections: 1, ConnectTimeout: time.Minute}
	w := worldOf(t, u)
	get(t, w.url("/")) // the endpoint says how many streams it takes when a connection has begun
	results := make(chan string)
	for range 20 {
		go func() {
			res, err := http.Get(w.url("/"))
			if err != nil {
				results <- err.Error()
				return
			}
			res.Body.Close()
			results <- res.Status
		}()
	}
	for range 20 {
		if got := <-results; got != "200 OK" {
			t.Errorf("got %s", got)
		}
	}
	if s, _ := w.engine.Upstream(u.ID); s.Endpoints[0].Connections > 1 {
		t.Errorf("%d connections", s.Endpoints[0].Connections)
	}
}

// TestNoHealthyEndpointIsSaid holds that the answer is 503, and that the state says
// why.
func TestNoHealthyEndpointIsSaid(t *testing.T) {
	u := service("a", backendServer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	u.Policy = &model.UpstreamPolicy{HealthCheck: &model.HealthCheck{Path: "/", Interval: 5 * time.Millisecond, Unhealthy: 1}}
	w := worldOf(t, u)
	eventually(t, "the state says so", func() bool {
		s, _ := w.engine.Upstream(u.ID)
		return s.Err != nil && s.Endpoints[0].Unhealthy
	})
	if res, _ := get(t, w.url("/")); res.StatusCode != 503 {
		t.Errorf("got %d", res.StatusCode)
	}
}

// TestLimitsOfHTTP3 holds that a listener's limits are those of its QUIC
// connections too, which count among its connections.
func TestLimitsOfHTTP3(t *testing.T) {
	ca := newAuthority(t)
	w := newWorld(t, Config{})
	l := httpsListener("https", "", "cert")
	l.Policy.EnableHTTP3, l.Policy.MaxHeaders, l.Policy.MaxConnectionsPerClient = true, 12, 1
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{l}, Routes: []model.Route{attach("r", "a", l, "")},
		Upstreams:    []model.Upstream{service("a", backendServer(t, named("a")))},
		Certificates: []model.Certificate{ca.secret(t, "cert", "a.example.com")},
	})
	w.sockets.mu.Lock()
	addr := w.sockets.addrs["udp443"]
	w.sockets.mu.Unlock()
	client := func() (*http.Client, *http3.Transport) {
		tr := &http3.Transport{
			TLSClientConfig: &tls.Config{RootCAs: ca.pool(), ServerName: "a.example.com"},
			Dial: func(ctx context.Context, _ string, c *tls.Config, q *quic.Config) (*quic.Conn, error) {
				return quic.DialAddr(ctx, addr, c, q)
			},
		}
		t.Cleanup(func() { tr.Close() })
		return &http.Client{Transport: tr, Timeout: time.Minute}, tr
	}
	open := func() int {
		s, _ := w.engine.Listener(l.ID)
		return s.Connections
	}
	first, tr := client()
	for n, want := range map[int]int{1: 200, 20: 431} {
		req, _ := http.NewRequest("GET", "https://a.example.com/", nil)
		for i := range n {
			req.Header.Set(fmt.Sprint("X-", i), "x")
		}
		res, err := first.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%d fields: got %d, want %d", n, res.StatusCode, want)
		}
	}
	if n := open(); n != 1 {
		t.Errorf("%d connections are counted, want 1", n)
	}
	second, _ := client()
	if res, err := second.Get("https://a.example.com/"); err == nil {
		res.Body.Close()
		t.Errorf("a second connection of one client got %d", res.StatusCode)
	}
	tr.Close()
	eventually(t, "the connection is counted out", func() bool { return open() == 0 })
}

// TestTCPRouteBehindTLS is a TCPRoute at listeners that terminate TLS, told apart
// by server name, beside a UDP listener of the same port.
func TestTCPRouteBehindTLS(t *testing.T) {
	ca := newAuthority(t)
	la, lb := httpsListener("a", "a.example.com", "cert"), httpsListener("b", "b.example.com", "cert")
	la.Protocol, lb.Protocol = model.ListenTLS, model.ListenTLS
	udp := model.Listener{ID: model.ListenerID{Gateway: gateway, Name: "udp"}, Port: 443, Protocol: model.ListenUDP, Policy: &model.ListenerPolicy{}}
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(append([]byte("re:"), buf[:n]...), from)
		}
	}()
	behindUDP := service("u", server.LocalAddr().String())
	behindUDP.ID = model.UpstreamID{ObjectName: upstreamID("a").ObjectName, Port: 80, UDP: true} // beside a's TCP port
	toUDP := streamRoute(model.UDPRoute, "u", "a", udp, "")
	toUDP.Rules[0].Backends[0].Upstream = behindUDP.ID
	w := newWorld(t, Config{})
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{la, lb, udp},
		Routes: []model.Route{
			streamRoute(model.TCPRoute, "ra", "a", la, "a.example.com"), streamRoute(model.TCPRoute, "rb", "b", lb, "b.example.com"), toUDP,
		},
		Upstreams:    []model.Upstream{service("a", lineServer(t, "one")), service("b", lineServer(t, "two")), behindUDP},
		Certificates: []model.Certificate{ca.secret(t, "cert", "a.example.com", "b.example.com")},
	})
	for name, want := range map[string]string{"a.example.com": "one:hi", "b.example.com": "two:hi"} {
		c, err := tls.Dial("tcp", w.addr(443), &tls.Config{RootCAs: ca.pool(), ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		if got := talk(t, c, "hi"); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	w.sockets.mu.Lock()
	addr := w.sockets.addrs["udp443"]
	w.sockets.mu.Unlock()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 100)
	eventually(t, "an answer", func() bool {
		c.SetDeadline(time.Now().Add(time.Second))
		c.Write([]byte("ping"))
		n, err := c.Read(buf)
		return err == nil && string(buf[:n]) == "re:ping"
	})
}

// TestClientCertificatesOfListeners is GEP-91 through the engine.
func TestClientCertificatesOfListeners(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	pair := func(of *authority) []tls.Certificate {
		chain, key := of.issue(t, "", "client")
		p, err := tls.X509KeyPair(chain, key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{p}
	}
	for _, c := range []struct {
		name  string
		mode  model.ClientAuth
		certs []tls.Certificate
		ok    bool
	}{
		{"required and valid", model.RequireClientAuth, pair(ca), true},
		{"required and absent", model.RequireClientAuth, nil, false},
		{"required and of another authority", model.RequireClientAuth, pair(other), false},
		{"fallback, valid", model.AllowInsecureFallback, pair(ca), true},
		{"fallback, absent", model.AllowInsecureFallback, nil, true},
		{"fallback, of another authority", model.AllowInsecureFallback, pair(other), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Config{})
			l := httpsListener("https", "", "cert")
			l.TLS.ClientAuth, l.TLS.ClientCAs = c.mode, ca.pem
			w.apply(driver.GatewayBatch{
				Listeners: []model.Listener{l}, Routes: []model.Route{attach("r", "a", l, "")},
				Upstreams:    []model.Upstream{service("a", backendServer(t, named("a")))},
				Certificates: []model.Certificate{ca.secret(t, "cert", "a.example.com")},
			})
			client := w.client(ca, "a.example.com", false)
			conf := client.Transport.(*http.Transport).TLSClientConfig
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(c.certs) == 0 {
					return &tls.Certificate{}, nil
				}
				return &c.certs[0], nil // whatever authorities are asked for
			}
			res, err := client.Get("https://a.example.com/")
			if err == nil {
				res.Body.Close()
			}
			if ok := err == nil && res.StatusCode == 200; ok != c.ok {
				t.Errorf("got %v, %v", res, err)
			}
		})
	}
}

// TestProxyHeaderFromClients holds that a PROXY header of a trusted peer names the
// client, and that one of anybody else is no request.
func TestProxyHeaderFromClients(t *testing.T) {
	for trusted, want := range map[string]int{"127.0.0.0/8": 200, "10.0.0.0/8": 400} {
		w := newWorld(t, Config{})
		l := httpListener("")
		l.Policy.AcceptProxyProtocol, l.Policy.TrustedProxies = true, []netip.Prefix{netip.MustParsePrefix(trusted)}
		w.apply(driver.GatewayBatch{
			Listeners: []model.Listener{l},
			Routes: []model.Route{routeTo("r", "a", func(r *model.Route) {
				r.Rules[0].Policy = &model.TrafficPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}}
			})},
			Upstreams: []model.Upstream{service("a", backendServer(t, named("a")))},
		})
		_, c := rawRequest(t, w.addr(80), "PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if c != want {
			t.Errorf("trusted %s: got %d, want %d", trusted, c, want)
		}
	}
}
