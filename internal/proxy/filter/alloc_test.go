//go:build !race

package filter

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// TestNoAllocations: what every request of a busy route goes through.
func TestNoAllocations(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := fields("user-agent: x", "x-a: 1", "origin: https://a.b.com", "accept-encoding: gzip, br;q=0.5", "cookie: a=b", "via: 1.1 x")
	own := make([]message.Field, 0, 32)
	buf, path := make([]byte, 0, 512), make([]byte, 0, 64)
	q := request("GET", "/old/path?q")
	client := netip.MustParseAddr("2001:db8::1")
	now := time.Unix(1_800_000_000, 0)

	h, err := NewHeaders(&model.HeaderFilter{Set: []model.Header{{Name: "x-a", Value: "2"}, {Name: "x-b", Value: "2"}}, Add: []model.Header{{Name: "x-c", Value: "3"}}, Remove: []string{"user-agent"}})
	must(err)
	rd, err := NewRedirect(&model.Redirect{Scheme: "https", Port: 8443, Path: &model.PathModifier{Prefix: true, Value: "/new"}})
	must(err)
	rw, err := NewRewrite(&model.Rewrite{Hostname: "b.com", Path: &model.PathModifier{Prefix: true, Value: "/new"}})
	must(err)
	cors, err := NewCORS(&model.CORS{AllowOrigins: []string{"https://c.com", "https://*.b.com"}, AllowMethods: []string{"GET"}, AllowCredentials: true})
	must(err)
	w, err := NewWeights(weights(60, 30, 10))
	must(err)
	s, err := NewSample(&model.Mirror{Numerator: 1, Denominator: 10})
	must(err)
	access, err := NewAccess(&model.TrafficPolicy{Allow: prefixes("2001:db8::/32", "10.0.0.0/8")})
	must(err)
	limit, err := NewRateLimit(&model.RateLimit{Requests: 1, Per: time.Second})
	must(err)
	session := newSession(t, model.SessionPersistence{Name: "s"}, sessionKey)
	cookie := fields(give(t, session, SessionEndpoint{1, netip.MustParseAddrPort("10.0.0.1:80")}))
	none, err := NewAddresses(nil)
	must(err)
	comp := newCompression(t, "zstd", "br", "gzip")
	var forward Forward

	for _, c := range []struct {
		name string
		max  float64
		do   func()
	}{
		{"headers", 0, func() { h.Apply(append(own, in...)) }},
		{"redirect", 0, func() { rd.Location(buf, q, 80, "/old") }},
		{"rewrite", 0, func() { q.Path = append(path[:0], "/old/path?q"...); rw.Apply(q, "/old", buf) }},
		{"cors", 0, func() { cors.Apply(append(own, in...), in[2].Value) }},
		{"weights", 0, func() { w.Next() }},
		{"sample", 0, func() { s.Take() }},
		{"access", 0, func() { access.Allowed(client) }},
		{"rate limit", 0, func() { limit.Allow(in, client, now.UnixNano()) }},
		{"client", 0, func() { none.Client(in, client) }},
		{"forward", 0, func() { q.Fields = append(own, in...); forward.Apply(q, client, false, "HTTP/1.1") }},
		{"choose encoding", 0, func() { comp.choose(in) }},
		// What GCM itself takes.
		{"session", 1, func() {
			if _, ok := session.Find(cookie, now); !ok {
				t.Fatal("not found")
			}
		}},
	} {
		if n := testing.AllocsPerRun(100, c.do); n > c.max {
			t.Errorf("%s: %v allocations, want %v", c.name, n, c.max)
		}
	}
}

func BenchmarkEncoder(b *testing.B) {
	body := []byte(`{"name": "value", "list": [1, 2, 3, 4, 5, 6, 7, 8], "text": "the quick brown fox jumps over the lazy dog"}`)
	for len(body) < 100<<10 {
		body = append(body, body...)
	}
	for _, encoding := range []string{"gzip", "br", "zstd"} {
		b.Run(encoding, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				e := newEncoder(encoding)
				if _, err := e.Encode(body, true); err != nil {
					b.Fatal(err)
				}
				e.Close()
			}
		})
	}
}

func BenchmarkWeights(b *testing.B) {
	w, err := NewWeights(weights(60, 30, 10))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		w.Next()
	}
}
