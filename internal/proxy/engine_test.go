package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// loopback opens every port on a free port of loopback, and knows which.
type loopback struct {
	mu    sync.Mutex
	addrs map[string]string
}

func (l *loopback) note(network, address string, at net.Addr) {
	_, port, _ := net.SplitHostPort(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.addrs == nil {
		l.addrs = map[string]string{}
	}
	l.addrs[network[:3]+port] = at.String()
}

func (l *loopback) Listen(_ context.Context, network, address string) (net.Listener, error) {
	s, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		l.note(network, address, s.Addr())
	}
	return s, err
}

func (l *loopback) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	s, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err == nil {
		l.note(network, address, s.LocalAddr())
	}
	return s, err
}

// world is an engine on loopback, and the state it is told of.
type world struct {
	t       *testing.T
	engine  *Engine
	sockets *loopback
}

func newWorld(t *testing.T, c Config) *world {
	t.Helper()
	w := &world{t: t, sockets: &loopback{}}
	c.Sockets = w.sockets
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.engine = e
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return w
}

func (w *world) apply(b driver.GatewayBatch) {
	w.t.Helper()
	if err := w.engine.Apply(w.t.Context(), b); err != nil {
		w.t.Fatal(err)
	}
}

// addr is where a listener's port really is.
func (w *world) addr(port int) string {
	w.sockets.mu.Lock()
	defer w.sockets.mu.Unlock()
	a := w.sockets.addrs[fmt.Sprint("tcp", port)]
	if a == "" {
		w.t.Fatalf("port %d is not open", port)
	}
	return a
}

func (w *world) url(path string) string { return "http://" + w.addr(80) + path }

var gateway = model.ObjectName{Namespace: "default", Name: "gw"}

func httpListener(hostname string) model.Listener {
	return model.Listener{
		ID: model.ListenerID{Gateway: gateway, Name: "http" + strings.ReplaceAll(hostname, "*", "any")}, Port: 80, Protocol: model.ListenHTTP,
		Hostname: hostname, Policy: &model.ListenerPolicy{},
	}
}

func upstreamID(name string) model.UpstreamID {
	return model.UpstreamID{ObjectName: model.ObjectName{Namespace: "default", Name: name}, Port: 80}
}

func service(name string, addrs ...string) model.Upstream {
	u := model.Upstream{ID: upstreamID(name)}
	for _, a := range addrs {
		u.Endpoints = append(u.Endpoints, model.Endpoint{Addr: netip.MustParseAddrPort(a)})
	}
	return u
}

// routeTo sends everything at the plain listener to a Service.
func routeTo(name, backend string, change ...func(*model.Route)) model.Route {
	r := model.Route{
		ID:          model.RouteID{Kind: model.HTTPRoute, ObjectName: model.ObjectName{Namespace: "default", Name: name}},
		Attachments: []model.Attachment{{Listener: httpListener("").ID, Hostnames: []string{""}}},
		Rules: []model.Rule{{
			Matches:  []model.Match{{Path: "/"}},
			Backends: []model.BackendRef{{Upstream: upstreamID(backend), Weight: 1}},
		}},
	}
	for _, f := range change {
		f(&r)
	}
	return r
}

// backend is a server of net/http.
func backendServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// named answers with a name.
func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("x-backend", name)
		io.WriteString(w, name)
	}
}

// simple is a world with one route to one backend.
func simple(t *testing.T, h http.HandlerFunc, change ...func(*model.Route)) *world {
	t.Helper()
	w := newWorld(t, Config{})
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{httpListener("")},
		Routes:    []model.Route{routeTo("r", "a", change...)},
		Upstreams: []model.Upstream{service("a", backendServer(t, h))},
	})
	return w
}

// do sends a request and returns the response with its body read.
func do(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := testClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

var testClient = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       time.Minute,
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, req)
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatalf("not in 30 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestPlainRequest(t *testing.T) {
	w := simple(t, named("a"))
	res, body := get(t, w.url("/x?y=1"))
	if res.StatusCode != 200 || body != "a" || res.Header.Get("x-backend") != "a" {
		t.Errorf("got %d %q %v", res.StatusCode, body, res.Header)
	}
	if s, ok := w.engine.Route(routeTo("r", "a").ID); !ok || !s.Serving || len(s.Requests) != 1 || s.Requests[0] != 1 {
		t.Errorf("route state %+v", s)
	}
	if s, ok := w.engine.Upstream(upstreamID("a")); !ok || len(s.Endpoints) != 1 || s.Endpoints[0].Total != 1 || s.Endpoints[0].Failed != 0 {
		t.Errorf("upstream state %+v", s)
	}
}

// echo answers with the body while it comes.
func echo(w http.ResponseWriter, r *http.Request) {
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		panic(err)
	}
	io.Copy(w, r.Body)
}

func TestBodyBothWays(t *testing.T) {
	for _, size := range []int{0, 1, 1000, 40 << 10, 3 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := simple(t, echo)
			want := strings.Repeat("0123456789abcde\n", size/16+1)[:size]
			req, _ := http.NewRequest("POST", w.url("/"), strings.NewReader(want))
			if res, body := do(t, req); res.StatusCode != 200 || body != want {
				t.Errorf("got %d, %d bytes of %d", res.StatusCode, len(body), len(want))
			}
			// The same in chunks.
			req, _ = http.NewRequest("POST", w.url("/"), io.MultiReader(strings.NewReader(want)))
			if res, body := do(t, req); res.StatusCode != 200 || body != want {
				t.Errorf("chunked: got %d, %d bytes of %d", res.StatusCode, len(body), len(want))
			}
		})
	}
}

func TestNoRoute(t *testing.T) {
	w := simple(t, named("a"), func(r *model.Route) { r.Rules[0].Matches[0].Path = "/only" })
	if res, _ := get(t, w.url("/other")); res.StatusCode != 404 {
		t.Errorf("got %d", res.StatusCode)
	}
}
