package proxy

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// describe answers with what the backend saw.
func describe(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	json.NewEncoder(w).Encode(map[string]any{"host": r.Host, "uri": r.RequestURI, "method": r.Method, "header": r.Header, "body": string(body)})
}

type described struct {
	Host, URI, Method, Body string
	Header                  http.Header
}

func seen(t *testing.T, body string) (d described) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Fatalf("%v: %q", err, body)
	}
	return d
}

func TestForwardedHeaders(t *testing.T) {
	w := simple(t, describe)
	req, _ := http.NewRequest("GET", w.url("/"), nil)
	req.Host = "shop.example.com"
	req.Header.Set("X-Forwarded-For", "10.9.9.9") // not trusted
	_, body := do(t, req)
	d := seen(t, body)
	if d.Host != "shop.example.com" || d.Header.Get("X-Forwarded-For") != "127.0.0.1" || d.Header.Get("X-Forwarded-Proto") != "http" ||
		d.Header.Get("X-Forwarded-Host") != "shop.example.com" {
		t.Errorf("got %+v", d)
	}
}

func TestHeadersRewriteAndBackendFilters(t *testing.T) {
	w := simple(t, describe, func(r *model.Route) {
		rule := &r.Rules[0]
		rule.Matches[0].Path = "/old"
		rule.Filters.RequestHeaders = &model.HeaderFilter{Set: []model.Header{{Name: "x-a", Value: "rule"}}, Remove: []string{"x-drop"}}
		rule.Filters.Rewrite = &model.Rewrite{Hostname: "inner.example.com", Path: &model.PathModifier{Prefix: true, Value: "/new"}}
		rule.Filters.ResponseHeaders = &model.HeaderFilter{Set: []model.Header{{Name: "x-r", Value: "rule"}}}
		rule.Backends[0].Filters.RequestHeaders = &model.HeaderFilter{Add: []model.Header{{Name: "x-a", Value: "backend"}}}
		rule.Backends[0].Filters.ResponseHeaders = &model.HeaderFilter{Add: []model.Header{{Name: "x-r", Value: "backend"}, {Name: "x-b", Value: "b"}}}
	})
	req, _ := http.NewRequest("GET", w.url("/old/x?q=1"), nil)
	req.Header.Set("X-Drop", "1")
	res, body := do(t, req)
	d := seen(t, body)
	if d.URI != "/new/x?q=1" || d.Host != "inner.example.com" || strings.Join(d.Header["X-A"], ",") != "rule,backend" || d.Header.Get("X-Drop") != "" {
		t.Errorf("request: %+v", d)
	}
	if res.Header.Get("x-r") != "rule" || res.Header.Get("x-b") != "b" {
		t.Errorf("response: %v", res.Header)
	}
}

func TestRedirect(t *testing.T) {
	w := simple(t, named("a"), func(r *model.Route) {
		r.Rules[0].Backends = nil
		r.Rules[0].Filters.Redirect = &model.Redirect{Scheme: "https", Hostname: "example.org", Status: 301, Path: &model.PathModifier{Value: "/there"}}
	})
	if res, _ := get(t, w.url("/here?a=b")); res.StatusCode != 301 || res.Header.Get("Location") != "https://example.org/there?a=b" {
		t.Errorf("got %d %q", res.StatusCode, res.Header.Get("Location"))
	}
}

func TestCORS(t *testing.T) {
	w := simple(t, named("a"), func(r *model.Route) {
		r.Rules[0].Filters.CORS = &model.CORS{AllowOrigins: []string{"https://app.example.com"}, AllowMethods: []string{"PUT"}}
	})
	req, _ := http.NewRequest("OPTIONS", w.url("/"), nil)
	req.Header.Set("Origin", "https://app.example.com")
	req.Header.Set("Access-Control-Request-Method", "PUT")
	if res, body := do(t, req); res.StatusCode != 204 || body != "" || res.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" ||
		res.Header.Get("Access-Control-Allow-Methods") != "PUT" || res.Header.Get("x-backend") != "" {
		t.Errorf("preflight: %d %v", res.StatusCode, res.Header)
	}
	req, _ = http.NewRequest("GET", w.url("/"), nil)
	req.Header.Set("Origin", "https://app.example.com")
	if res, _ := do(t, req); res.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || res.Header.Get("x-backend") != "a" {
		t.Errorf("request: %v", res.Header)
	}
}

func TestPolicies(t *testing.T) {
	type check struct {
		change func(*http.Request)
		status int
	}
	for _, c := range []struct {
		name   string
		policy model.TrafficPolicy
		checks []check
	}{
		{"denied address", model.TrafficPolicy{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, []check{{nil, 403}}},
		{"allowed address", model.TrafficPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, []check{{nil, 200}}},
		{"another address", model.TrafficPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, []check{{nil, 403}}},
		{"rate limit", model.TrafficPolicy{RateLimits: []model.RateLimit{{Requests: 1, Per: time.Hour, Burst: 2}}}, []check{{nil, 200}, {nil, 200}, {nil, 429}}},
		{"rate limit by header", model.TrafficPolicy{RateLimits: []model.RateLimit{{Requests: 1, Per: time.Hour, Header: "x-key"}}}, []check{
			{func(r *http.Request) { r.Header.Set("X-Key", "a") }, 200}, {func(r *http.Request) { r.Header.Set("X-Key", "b") }, 200},
			{func(r *http.Request) { r.Header.Set("X-Key", "a") }, 429},
		}},
		{"basic auth", model.TrafficPolicy{BasicAuth: &model.BasicAuth{Realm: "r", Users: model.Secret("joe:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")}}, []check{
			{nil, 401}, {func(r *http.Request) { r.SetBasicAuth("joe", "password") }, 200}, {func(r *http.Request) { r.SetBasicAuth("joe", "x") }, 401},
		}},
		{"body limit", model.TrafficPolicy{MaxBody: 4}, []check{
			{func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("1234")), 4 }, 200},
			{func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("12345")), 5 }, 413},
			{func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("12345")), -1 }, 413},
			{func(r *http.Request) {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20))), -1
			}, 413},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := simple(t, named("a"), func(r *model.Route) { r.Rules[0].Policy = &c.policy })
			for i, check := range c.checks {
				req, _ := http.NewRequest("POST", w.url("/"), nil)
				if check.change != nil {
					check.change(req)
				}
				if res, _ := do(t, req); res.StatusCode != check.status {
					t.Errorf("request %d: got %d, want %d", i, res.StatusCode, check.status)
				}
			}
		})
	}
}

func TestCompressionAndErrorPages(t *testing.T) {
	long := strings.Repeat("compress me ", 1000)
	w := simple(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		if r.URL.Path == "/error" {
			http.Error(w, "the backend's", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, long)
	}, func(r *model.Route) {
		r.Rules[0].Policy = &model.TrafficPolicy{Compression: []string{"gzip"}, ErrorPages: map[int]model.ErrorPage{503: {ContentType: "text/html", Body: []byte("<p>sorry</p>")}}}
	})
	req, _ := http.NewRequest("GET", w.url("/"), nil)
	req.Header.Set("Accept-Encoding", "gzip")
	res, body := do(t, req)
	if res.Header.Get("Content-Encoding") != "gzip" || len(body) >= len(long) {
		t.Fatalf("got %v, %d bytes", res.Header, len(body))
	}
	z, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(z); err != nil || string(plain) != long {
		t.Errorf("got %d bytes, %v", len(plain), err)
	}
	if res, body := get(t, w.url("/error")); res.StatusCode != 503 || body != "<p>sorry</p>" || res.Header.Get("Content-Type") != "text/html" {
		t.Errorf("page: %d %q %v", res.StatusCode, body, res.Header)
	}
}

func TestWeightsAndSessions(t *testing.T) {
	w := newWorld(t, Config{})
	split := func(r *model.Route) {
		r.Rules[0].Backends = []model.BackendRef{{Upstream: upstreamID("a"), Weight: 90}, {Upstream: upstreamID("b"), Weight: 10}}
	}
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{httpListener("")}, Routes: []model.Route{routeTo("r", "a", split)},
		Upstreams: []model.Upstream{
			service("a", backendServer(t, named("a1")), backendServer(t, named("a2"))), service("b", backendServer(t, named("b"))),
		},
	})
	n := map[string]int{}
	for range 100 {
		_, body := get(t, w.url("/"))
		n[body]++
	}
	if n["b"] != 10 || n["a1"] != 45 || n["a2"] != 45 {
		t.Errorf("got %v", n)
	}
	w.apply(driver.GatewayBatch{Routes: []model.Route{routeTo("r", "a", split, func(r *model.Route) {
		r.Rules[0].Session = &model.SessionPersistence{Name: "sid"}
	})}})
	for range 12 {
		res, first := get(t, w.url("/"))
		cookies := res.Cookies()
		if len(cookies) != 1 {
			t.Fatalf("cookies %v", cookies)
		}
		for range 5 {
			req, _ := http.NewRequest("GET", w.url("/"), nil)
			req.AddCookie(cookies[0])
			if res, body := do(t, req); body != first || len(res.Cookies()) != 0 {
				t.Fatalf("a session of %s got %s, %v", first, body, res.Cookies())
			}
		}
	}
}

func TestMirrors(t *testing.T) {
	for _, size := range []int{0, 100, 500 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			got := make(chan described, 10)
			copyTo := backendServer(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err == nil {
					got <- described{Body: string(body), URI: r.RequestURI}
				}
				http.Error(w, "nobody sees this", 500)
			})
			w := newWorld(t, Config{})
			r := routeTo("r", "a", func(r *model.Route) {
				r.Rules[0].Filters.Mirrors = []model.Mirror{{Upstream: upstreamID("m"), Numerator: 1, Denominator: 2}}
			})
			w.apply(driver.GatewayBatch{
				Listeners: []model.Listener{httpListener("")}, Routes: []model.Route{r},
				Upstreams: []model.Upstream{service("a", backendServer(t, echo)), service("m", copyTo)},
			})
			want := strings.Repeat("m", size)
			for range 4 {
				req, _ := http.NewRequest("POST", w.url("/x"), slowly(want))
				if res, body := do(t, req); res.StatusCode != 200 || body != want {
					t.Fatalf("got %d, %d bytes", res.StatusCode, len(body))
				}
			}
			for range 2 {
				select {
				case d := <-got:
					if d.Body != want || d.URI != "/x" {
						t.Errorf("the copy had %d bytes, %s", len(d.Body), d.URI)
					}
				case <-time.After(30 * time.Second):
					t.Fatal("no copy")
				}
			}
			select {
			case <-got:
				t.Error("more than half were copied")
			default:
			}
		})
	}
}

// slowly gives a body in small reads, so that copies keep up.
func slowly(s string) io.Reader {
	if len(s) < 1000 {
		return strings.NewReader(s)
	}
	return &slowReader{r: strings.NewReader(s)}
}

type slowReader struct{ r io.Reader }

func (s *slowReader) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return s.r.Read(p[:min(len(p), 16<<10)])
}

func TestSessionsOfUpstreams(t *testing.T) {
	w := newWorld(t, Config{})
	sticky := service("a", backendServer(t, named("a1")), backendServer(t, named("a2")))
	sticky.Policy = &model.UpstreamPolicy{Session: &model.SessionPersistence{Name: "of-a"}}
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{httpListener("")},
		Routes: []model.Route{routeTo("r", "a", func(r *model.Route) {
			r.Rules[0].Backends = append(r.Rules[0].Backends, model.BackendRef{Upstream: upstreamID("b"), Weight: 1})
		})},
		Upstreams: []model.Upstream{sticky, service("b", backendServer(t, named("b")))},
	})
	began := 0
	for range 8 {
		res, first := get(t, w.url("/"))
		cookies := res.Cookies()
		if first == "b" {
			if len(cookies) != 0 {
				t.Fatalf("b has no sessions, and began %v", cookies)
			}
			continue
		}
		if len(cookies) != 1 || cookies[0].Name != "of-a" {
			t.Fatalf("cookies of %s: %v", first, cookies)
		}
		began++
		for range 5 {
			req, _ := http.NewRequest("GET", w.url("/"), nil)
			req.AddCookie(cookies[0])
			if res, body := do(t, req); body != first || len(res.Cookies()) != 0 {
				t.Fatalf("a session of %s got %s, %v", first, body, res.Cookies())
			}
		}
	}
	if began == 0 {
		t.Error("no session began")
	}
	// The policy goes: tokens mean nothing any more.
	sticky.Policy = nil
	w.apply(driver.GatewayBatch{Upstreams: []model.Upstream{sticky}})
	for range 4 {
		if res, body := get(t, w.url("/")); len(res.Cookies()) != 0 {
			t.Errorf("%s began %v", body, res.Cookies())
		}
	}
	sticky.Policy = &model.UpstreamPolicy{Session: &model.SessionPersistence{Name: "bad name"}}
	w.apply(driver.GatewayBatch{Upstreams: []model.Upstream{sticky}})
	if s, _ := w.engine.Upstream(sticky.ID); s.Err == nil {
		t.Error("the state has no error of a session that cannot be")
	}
}
