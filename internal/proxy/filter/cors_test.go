package filter

import (
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// TestPreflight has the cases of the conformance test HTTPRouteCORS, and more.
func TestPreflight(t *testing.T) {
	listed := model.CORS{
		AllowOrigins: []string{"https://www.foo.com", "https://*.bar.com"}, AllowCredentials: true,
		AllowMethods: []string{"GET", "OPTIONS"}, AllowHeaders: []string{"x-header-1", "x-header-2"},
		ExposeHeaders: []string{"x-header-3", "x-header-4"}, MaxAge: time.Hour,
	}
	allowed := func(origin string) []string {
		return []string{"vary: Origin", "access-control-allow-origin: " + origin, "access-control-allow-credentials: true",
			"access-control-allow-methods: GET, OPTIONS", "access-control-allow-headers: x-header-1, x-header-2",
			"access-control-expose-headers: x-header-3, x-header-4", "access-control-max-age: 3600"}
	}
	all := model.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}}
	allWithCredentials := all
	allWithCredentials.AllowCredentials = true
	for _, c := range []struct {
		name   string
		m      model.CORS
		origin string
		want   []string
	}{
		{"exact origin", listed, "https://www.foo.com", allowed("https://www.foo.com")},
		{"wildcard origin", listed, "https://www.bar.com", allowed("https://www.bar.com")},
		{"wildcard of two labels", listed, "https://xpto.www.bar.com", allowed("https://xpto.www.bar.com")},
		{"another port", listed, "https://www.foo.com:8443", []string{"vary: Origin"}},
		{"the port that is meant", listed, "https://www.foo.com:443", allowed("https://www.foo.com:443")},
		{"another scheme", listed, "http://www.foo.com", []string{"vary: Origin"}},
		{"another host", listed, "https://foobar.com", []string{"vary: Origin"}},
		{"without the label", listed, "https://bar.com", []string{"vary: Origin"}},
		{"an empty label", listed, "https://.bar.com", []string{"vary: Origin"}},
		{"a suffix that is no label", listed, "https://evilbar.com", []string{"vary: Origin"}},
		{"a longer host", listed, "https://www.foo.com.evil.com", []string{"vary: Origin"}},
		{"null", listed, "null", []string{"vary: Origin"}},
		{"any", all, "https://foobar.com:12345", []string{"vary: Origin", "access-control-allow-origin: https://foobar.com:12345",
			"access-control-allow-methods: PUT", "access-control-allow-headers: x-a, x-b", "access-control-max-age: 5"}},
		{"any with credentials", allWithCredentials, "https://other.foo.com", []string{"vary: Origin", "access-control-allow-origin: https://other.foo.com",
			"access-control-allow-credentials: true", "access-control-allow-methods: PUT", "access-control-allow-headers: x-a, x-b", "access-control-max-age: 5"}},
		{"null where any is allowed", all, "null", []string{"vary: Origin", "access-control-allow-origin: null",
			"access-control-allow-methods: PUT", "access-control-allow-headers: x-a, x-b", "access-control-max-age: 5"}},
		{"null never has credentials", allWithCredentials, "null", []string{"vary: Origin"}},
		{"any host of a scheme", model.CORS{AllowOrigins: []string{"http://*:8080"}}, "http://a.b:8080", []string{"vary: Origin", "access-control-allow-origin: http://a.b:8080", "access-control-max-age: 5"}},
		{"two origins", all, "https://a.com, https://b.com", []string{"vary: Origin"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := NewCORS(&c.m)
			if err != nil {
				t.Fatal(err)
			}
			q := request("OPTIONS", "/", "origin: "+c.origin, "access-control-request-method: PUT", "access-control-request-headers: x-a, x-b")
			if !f.Preflight(q) {
				t.Fatal("is no preflight request")
			}
			expect(t, f.AppendPreflight(nil, q), c.want...)
		})
	}
}

func TestWhatIsNoPreflight(t *testing.T) {
	f, err := NewCORS(&model.CORS{AllowOrigins: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string][]string{
		"GET":         {"GET", "origin: a", "access-control-request-method: GET"},
		"no origin":   {"OPTIONS", "access-control-request-method: GET"},
		"no question": {"OPTIONS", "origin: a"},
	} {
		if f.Preflight(request(q[0], "/", q[1:]...)) {
			t.Errorf("%s is one", name)
		}
	}
	if (*CORS)(nil).Preflight(request("OPTIONS", "/", "origin: a", "access-control-request-method: GET")) {
		t.Error("one is taken without a filter")
	}
}

func TestCORSApply(t *testing.T) {
	f, err := NewCORS(&model.CORS{AllowOrigins: []string{"https://a.com"}, AllowCredentials: true, ExposeHeaders: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	backend := []string{"x-own: 1", "access-control-allow-origin: *", "vary: accept, ORIGIN", "set-cookie: a"}
	expect(t, f.Apply(fields(backend...), []byte("https://a.com")), "x-own: 1", "vary: accept, ORIGIN", "set-cookie: a",
		"access-control-allow-origin: https://a.com", "access-control-allow-credentials: true", "access-control-expose-headers: x-own, vary")
	expect(t, f.Apply(fields(backend...), []byte("https://b.com")), "x-own: 1", "vary: accept, ORIGIN", "set-cookie: a")
	expect(t, f.Apply(fields("x-own: 1"), nil), "x-own: 1", "vary: Origin")
	expect(t, (*CORS)(nil).Apply(fields("access-control-allow-origin: *"), nil), "access-control-allow-origin: *")
}

func TestCORSRefuses(t *testing.T) {
	for origin, field := range map[string]string{
		"foo.com": "allowOrigins[0]", "ftp://a.com": "allowOrigins[0]", "https://": "allowOrigins[0]", "https://a.com/x": "allowOrigins[0]",
		"https://*.*.com": "allowOrigins[0]", "https://a.com:0": "allowOrigins[0]", "https://a.com:99999": "allowOrigins[0]", "https://u@a.com": "allowOrigins[0]",
	} {
		_, err := NewCORS(&model.CORS{AllowOrigins: []string{origin}})
		wrong(t, err, field)
	}
	_, err := NewCORS(&model.CORS{AllowMethods: []string{"GET", "A B"}})
	wrong(t, err, "allowMethods[1]")
	_, err = NewCORS(&model.CORS{ExposeHeaders: []string{"a\r\nb"}})
	wrong(t, err, "exposeHeaders[0]")
}

// TestPreflightEchoesNoInjection: what a client names is repeated only if it is a name.
func TestPreflightEchoesNoInjection(t *testing.T) {
	f, err := NewCORS(&model.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	q := request("OPTIONS", "/", "origin: https://a.com", "access-control-request-method: A;B", "access-control-request-headers: a: b")
	expect(t, f.AppendPreflight(nil, q), "vary: Origin", "access-control-allow-origin: https://a.com", "access-control-max-age: 5")
}
