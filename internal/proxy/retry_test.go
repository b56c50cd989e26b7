package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// deadAddr is an address on which nobody listens.
func deadAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func worldOf(t *testing.T, u model.Upstream, change ...func(*model.Route)) *world {
	t.Helper()
	w := newWorld(t, Config{})
	w.apply(driver.GatewayBatch{Listeners: []model.Listener{httpListener("")}, Routes: []model.Route{routeTo("r", "a", change...)}, Upstreams: []model.Upstream{u}})
	return w
}

func TestRefusedConnectionGoesToAnotherEndpoint(t *testing.T) {
	w := worldOf(t, service("a", deadAddr(t), backendServer(t, named("a"))))
	for _, method := range []string{"GET", "POST"} {
		for range 4 {
			req, _ := http.NewRequest(method, w.url("/"), strings.NewReader("body"))
			if res, _ := do(t, req); res.StatusCode != 200 {
				t.Errorf("%s: got %d", method, res.StatusCode)
			}
		}
	}
}

func TestNobodyAnswersIs502(t *testing.T) {
	w := worldOf(t, service("a", deadAddr(t), deadAddr(t)))
	if res, _ := get(t, w.url("/")); res.StatusCode != 502 {
		t.Errorf("got %d", res.StatusCode)
	}
}

func TestErrorStatuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*model.Route)
		want   int
	}{
		{"no endpoints", func(*model.Route) {}, 503},
		{"invalid backend", func(r *model.Route) { r.Rules[0].Backends[0].Invalid = "no Service" }, 500},
		{"an upstream nobody knows", func(r *model.Route) { r.Rules[0].Backends[0].Upstream = upstreamID("unknown") }, 500},
		{"no backends", func(r *model.Route) { r.Rules[0].Backends = nil }, 500},
		{"no weight", func(r *model.Route) { r.Rules[0].Backends[0].Weight = 0 }, 500},
		{"a filter that does not compile", func(r *model.Route) { r.Rules[0].Filters.Redirect = &model.Redirect{Status: 200} }, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := worldOf(t, service("a"), c.change)
			if res, _ := get(t, w.url("/")); res.StatusCode != c.want {
				t.Errorf("got %d, want %d", res.StatusCode, c.want)
			}
		})
	}
}

// flaky answers the first requests with a status.
func flaky(n int32, status int) (http.HandlerFunc, *atomic.Int32) {
	var seen atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if seen.Add(1) <= n {
			w.WriteHeader(status)
			return
		}
		w.Write(body)
	}, &seen
}

func TestRetryByCode(t *testing.T) {
	for _, c := range []struct {
		name     string
		retry    *model.Retry
		failures int32
		status   int
		seen     int32
	}{
		{"no retry", nil, 1, 503, 1},
		{"attempts of zero", &model.Retry{Codes: []int{503}}, 1, 503, 1},
		{"another code", &model.Retry{Codes: []int{500}, Attempts: 3}, 1, 503, 1},
		{"enough attempts", &model.Retry{Codes: []int{503}, Attempts: 2}, 2, 200, 3},
		{"too few attempts", &model.Retry{Codes: []int{503}, Attempts: 2}, 5, 503, 3},
		{"with a backoff", &model.Retry{Codes: []int{503}, Attempts: 1, Backoff: time.Millisecond}, 1, 200, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, seen := flaky(c.failures, 503)
			w := simple(t, h, func(r *model.Route) { r.Rules[0].Retry = c.retry })
			req, _ := http.NewRequest("POST", w.url("/"), strings.NewReader("again"))
			res, body := do(t, req)
			if res.StatusCode != c.status || seen.Load() != c.seen || c.status == 200 && body != "again" {
				t.Errorf("got %d %q after %d, want %d after %d", res.StatusCode, body, seen.Load(), c.status, c.seen)
			}
		})
	}
}

func TestLongBodyIsNotRetried(t *testing.T) {
	h, seen := flaky(1, 503)
	w := simple(t, h, func(r *model.Route) { r.Rules[0].Retry = &model.Retry{Codes: []int{503}, Attempts: 3} })
	req, _ := http.NewRequest("POST", w.url("/"), strings.NewReader(strings.Repeat("x", 2*replaySize)))
	if res, _ := do(t, req); res.StatusCode != 503 || seen.Load() != 1 {
		t.Errorf("got %d after %d", res.StatusCode, seen.Load())
	}
}

// TestIdleConnectionThatWasClosed uses a backend that closes connections about when
// the next request comes.
func TestIdleConnectionThatWasClosed(t *testing.T) {
	s := &http.Server{Handler: named("a"), IdleTimeout: time.Millisecond}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	w := worldOf(t, service("a", l.Addr().String()))
	for i := range 60 {
		method := "GET"
		if i%2 == 1 {
			method = "POST"
		}
		req, _ := http.NewRequest(method, w.url("/"), strings.NewReader(""))
		if res, _ := do(t, req); res.StatusCode != 200 {
			t.Fatalf("%s %d: got %d", method, i, res.StatusCode)
		}
		time.Sleep(time.Duration(i%4) * time.Millisecond)
	}
}

func TestTimeouts(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	slow := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}
	for name, change := range map[string]func(*model.Route){
		"request": func(r *model.Route) { r.Rules[0].RequestTimeout = 50 * time.Millisecond },
		"backend": func(r *model.Route) { r.Rules[0].BackendTimeout = 50 * time.Millisecond },
		"backend, tried again": func(r *model.Route) {
			r.Rules[0].BackendTimeout, r.Rules[0].Retry = 30*time.Millisecond, &model.Retry{Attempts: 2}
		},
		"request, tried again": func(r *model.Route) {
			r.Rules[0].RequestTimeout, r.Rules[0].BackendTimeout = 80*time.Millisecond, 30*time.Millisecond
			r.Rules[0].Retry = &model.Retry{Attempts: 100}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := simple(t, slow, change)
			if res, _ := get(t, w.url("/")); res.StatusCode != 504 {
				t.Errorf("got %d", res.StatusCode)
			}
		})
	}
}

func TestClientThatLeavesEndsTheCall(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	w := simple(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(ended)
	})
	c, err := net.Dial("tcp", w.addr(80))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-began
	c.Close()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the backend was not told")
	}
	eventually(t, "the request ends", func() bool { return w.engine.exchanges.inFlight() == 0 })
}

func TestEarlyResponse(t *testing.T) {
	w := simple(t, func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			panic(err)
		}
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})
	pr, pw := io.Pipe()
	defer pw.Close()
	go pw.Write([]byte("only the beginning"))
	req, _ := http.NewRequest("POST", w.url("/"), pr)
	if res, body := do(t, req); res.StatusCode != 413 || !strings.Contains(body, "too large") {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}

func TestResponseThatBreaksOffIsBrokenOff(t *testing.T) {
	w := worldOf(t, service("a", rawBackendOnce(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")))
	res, err := http.Get(w.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("got %q as if it were whole", body)
	}
}

// rawBackendOnce answers each connection once, and closes it.
func rawBackendOnce(t *testing.T, answer string) string {
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
			buf := make([]byte, 4096)
			c.Read(buf)
			io.WriteString(c, answer)
			c.Close()
		}
	}()
	return l.Addr().String()
}

func TestTrailersBothWays(t *testing.T) {
	w := simple(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "x-sum")
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "body")
		w.Header().Set("x-sum", "got "+r.Trailer.Get("x-in"))
	})
	req, _ := http.NewRequest("POST", w.url("/"), io.MultiReader(strings.NewReader("body")))
	req.Trailer = http.Header{"X-In": {"in"}}
	if res, body := do(t, req); body != "body" || res.Trailer.Get("x-sum") != "got in" {
		t.Errorf("got %q, %v", body, res.Trailer)
	}
}

func TestInformationalResponse(t *testing.T) {
	w := simple(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(103)
		w.WriteHeader(204)
	})
	c, err := net.Dial("tcp", w.addr(80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	all, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 103 ") || !strings.Contains(string(all), "HTTP/1.1 204 ") {
		t.Errorf("got %q, %v", all, err)
	}
}

func TestMaxRequestsOfAnUpstream(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{}, 1)
	u := service("a", backendServer(t, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-release
	}))
	u.Policy = &model.UpstreamPolicy{MaxRequests: 1}
	w := worldOf(t, u)
	done := make(chan int)
	go func() {
		res, err := http.Get(w.url("/"))
		if err != nil {
			done <- 0
			return
		}
		res.Body.Close()
		done <- res.StatusCode
	}()
	<-began
	if res, _ := get(t, w.url("/")); res.StatusCode != 503 {
		t.Errorf("the second got %d", res.StatusCode)
	}
	close(release)
	if got := <-done; got != 200 {
		t.Errorf("the first got %d", got)
	}
}

func TestWaitForAConnection(t *testing.T) {
	u := service("a", backendServer(t, func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Millisecond) }))
	u.Policy = &model.UpstreamPolicy{MaxConnections: 2}
	w := worldOf(t, u)
	results := make(chan int)
	for range 20 {
		go func() {
			res, err := http.Get(w.url("/"))
			if err != nil {
				results <- 0
				return
			}
			res.Body.Close()
			results <- res.StatusCode
		}()
	}
	for range 20 {
		if got := <-results; got != 200 {
			t.Errorf("got %d", got)
		}
	}
	s, _ := w.engine.Upstream(u.ID)
	if n := s.Endpoints[0].Connections; n > 2 {
		t.Errorf("%d connections", n)
	}
}
