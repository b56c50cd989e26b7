package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// load sends requests by several clients until the context ends, and tells of
// every one that is not answered with 200.
type load struct {
	wg     sync.WaitGroup
	done   atomic.Int64
	failed atomic.Int64
	first  atomic.Pointer[string]
	// each counts the requests of each client.
	each []atomic.Int64
}

func (l *load) start(ctx context.Context, clients int, do func(i int) error) {
	l.each = make([]atomic.Int64, clients)
	for c := range clients {
		l.wg.Go(func() {
			for i := c; ctx.Err() == nil; i++ {
				if err := do(i); err != nil {
					s := err.Error()
					l.first.CompareAndSwap(nil, &s)
					l.failed.Add(1)
				}
				l.done.Add(1)
				l.each[c].Add(1)
			}
		})
	}
}

// passed waits until every request has ended that was in flight, and more came.
func (l *load) passed(t *testing.T) {
	t.Helper()
	var was []int64
	for c := range l.each {
		was = append(was, l.each[c].Load())
	}
	eventually(t, "requests go on", func() bool {
		for c := range l.each {
			if l.each[c].Load() < was[c]+2 {
				return false
			}
		}
		return true
	})
}

func (l *load) check(t *testing.T) {
	t.Helper()
	l.wg.Wait()
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed, first: %s", n, l.done.Load(), *l.first.Load())
	}
	t.Logf("%d requests", l.done.Load())
}

// answered sends one request, every second with a body.
func answered(c *http.Client, url string, i int) error {
	var res *http.Response
	var err error
	if i%2 == 0 {
		res, err = c.Get(url)
	} else {
		res, err = c.Post(url, "text/plain", io.LimitReader(neverEnding('x'), 20000))
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != 200 {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

// TestNothingFailsWhileRoutesChange edits a route, replaces the backends one
// after the other, and adds and removes other routes, listeners and upstreams.
func TestNothingFailsWhileRoutesChange(t *testing.T) {
	var log logged
	w := newWorld(t, Config{AccessLog: &log})
	defer func() {
		if t.Failed() {
			w.engine.Close()
			t.Log(log.String())
		}
	}()
	listener := httpListener("")
	listener.Policy.AccessLog = model.AccessLog{Format: model.AccessLogText, OnlyErrors: true}
	fresh := func() (*httptest.Server, string) {
		s := httptest.NewServer(named("a"))
		return s, s.Listener.Addr().String()
	}
	var servers []*httptest.Server
	var addrs []string
	for range 3 {
		s, a := fresh()
		servers, addrs = append(servers, s), append(addrs, a)
	}
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{listener}, Routes: []model.Route{routeTo("r", "a")}, Upstreams: []model.Upstream{service("a", addrs...)},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var l load
	l.start(ctx, 4, func(i int) error { return answered(testClient, w.url(fmt.Sprint("/", i)), i) })
	for i := range 60 {
		w.apply(driver.GatewayBatch{Routes: []model.Route{routeTo("r", "a", func(r *model.Route) {
			r.Rules[0].Filters.RequestHeaders = &model.HeaderFilter{Set: []model.Header{{Name: "x-edit", Value: fmt.Sprint(i)}}}
		})}})
		other := routeTo("other", "other", func(r *model.Route) { r.Rules[0].Matches[0].Path = "/other" })
		l2 := httpListener(fmt.Sprintf("host%d.example.com", i))
		w.apply(driver.GatewayBatch{Routes: []model.Route{other}, Listeners: []model.Listener{l2}, Upstreams: []model.Upstream{service("other")}})
		// A new endpoint comes, then an old one goes, then its server ends.
		s, a := fresh()
		old := servers[0]
		servers, addrs = append(servers[1:], s), append(addrs, a)
		w.apply(driver.GatewayBatch{Upstreams: []model.Upstream{service("a", addrs...)}})
		addrs = addrs[1:]
		w.apply(driver.GatewayBatch{Upstreams: []model.Upstream{service("a", addrs...)}})
		// As Kubernetes does: the endpoint is gone first, and its server ends when what
		// it was sent before has ended.
		l.passed(t)
		shutdown(t, old)
		w.apply(driver.GatewayBatch{DeleteRoutes: []model.RouteID{other.ID}, DeleteListeners: []model.ListenerID{l2.ID}, DeleteUpstreams: []model.UpstreamID{upstreamID("other")}})
	}
	cancel()
	l.check(t)
	for _, s := range servers {
		s.Close()
	}
}

// shutdown ends a server after its last request.
func shutdown(t *testing.T, s *httptest.Server) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Config.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

func TestNothingFailsWhileCertificatesRotate(t *testing.T) {
	ca := newAuthority(t)
	w := newWorld(t, Config{})
	l := httpsListener("https", "", "cert")
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{l}, Routes: []model.Route{attach("r", "a", l, "")},
		Upstreams:    []model.Upstream{service("a", backendServer(t, named("a")))},
		Certificates: []model.Certificate{ca.secret(t, "cert", "a.example.com")},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var n load
	h1, h2 := w.client(ca, "a.example.com", false), w.client(ca, "a.example.com", true)
	n.start(ctx, 4, func(i int) error {
		c := h1
		if i%4 == 0 {
			c = h2
		}
		if i%10 == 0 {
			c.CloseIdleConnections() // so that there are handshakes
		}
		return answered(c, "https://a.example.com/", i)
	})
	for range 30 {
		w.apply(driver.GatewayBatch{Certificates: []model.Certificate{ca.secret(t, "cert", "a.example.com")}})
		n.passed(t)
	}
	cancel()
	n.check(t)
}

func TestDrainEndsInOrder(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	w := simple(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-release
		io.WriteString(w, "late")
	})
	done := make(chan error, 1)
	go func() {
		res, err := http.Get(w.url("/"))
		if err == nil {
			var body []byte
			body, err = io.ReadAll(res.Body)
			res.Body.Close()
			if string(body) != "late" {
				err = fmt.Errorf("got %q", body)
			}
		}
		done <- err
	}()
	<-began
	drained := make(chan error, 1)
	go func() { drained <- w.engine.Drain(t.Context()) }()
	eventually(t, "nothing can be applied", func() bool {
		return w.engine.Apply(t.Context(), driver.GatewayBatch{}) != nil
	})
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
}
