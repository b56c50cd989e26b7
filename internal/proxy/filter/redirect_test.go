package filter

import (
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

func request(method, url string, lines ...string) *message.Request {
	q := &message.Request{Method: []byte(method), Scheme: []byte("http"), Authority: []byte("example.org"), Path: []byte(url)}
	q.Fields = fields(lines...)
	return q
}

// TestPathChange has the table of HTTPPathModifier.ReplacePrefixMatch, and what it leaves out.
func TestPathChange(t *testing.T) {
	prefix := func(v string) *model.PathModifier { return &model.PathModifier{Prefix: true, Value: v} }
	for _, c := range []struct {
		path, prefix string
		m            *model.PathModifier
		want         string
	}{
		{"/foo/bar", "/foo", prefix("/xyz"), "/xyz/bar"},
		{"/foo/bar", "/foo", prefix("/xyz/"), "/xyz/bar"},
		{"/foo", "/foo", prefix("/xyz"), "/xyz"},
		{"/foo/", "/foo", prefix("/xyz"), "/xyz/"},
		{"/foo/bar", "/foo", prefix(""), "/bar"},
		{"/foo/", "/foo", prefix(""), "/"},
		{"/foo", "/foo", prefix(""), "/"},
		{"/foo/", "/foo", prefix("/"), "/"},
		{"/foo", "/foo", prefix("/"), "/"},
		{"/foo/bar", "", prefix("/xyz"), "/xyz/foo/bar"},
		{"/other", "/foo", prefix("/xyz"), "/xyz/other"},
		{"/", "", prefix("/xyz"), "/xyz/"},
		{"/foo?a=/foo", "/foo", prefix("/xyz"), "/xyz?a=/foo"},
		{"/foo/bar?a=b", "/foo", &model.PathModifier{Value: "/full"}, "/full?a=b"},
		{"/foo/bar?", "/foo", nil, "/foo/bar?"},
	} {
		r, err := NewRewrite(&model.Rewrite{Path: c.m})
		if err != nil {
			t.Fatal(err)
		}
		q := request("GET", c.path)
		r.Apply(q, c.prefix, nil)
		if string(q.Path) != c.want {
			t.Errorf("%s becomes %s, want %s", c.path, q.Path, c.want)
		}
	}
}

func TestRewrite(t *testing.T) {
	r, err := NewRewrite(&model.Rewrite{Hostname: "b.com", Path: &model.PathModifier{Value: "/x"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{{"/a?b", "/x?b"}, {"*", "*"}, {"", ""}} {
		q := request("GET", c.path)
		r.Apply(q, "", nil)
		if string(q.Path) != c.want || string(q.Authority) != "b.com" {
			t.Errorf("%q becomes %q at %q", c.path, q.Path, q.Authority)
		}
	}
	for _, bad := range []string{"x", "/a?b", "/a#b", "/a b", "/a\r\n", "\\a"} {
		_, err := NewRewrite(&model.Rewrite{Path: &model.PathModifier{Value: bad}})
		wrong(t, err, "path")
	}
	_, err = NewRewrite(&model.Rewrite{Hostname: "a.com/evil"})
	wrong(t, err, "hostname")
}

// TestRedirect has the cases of the conformance tests HTTPRouteRedirectPortAndScheme,
// -HostAndStatus and -Path.
func TestRedirect(t *testing.T) {
	for _, c := range []struct {
		name   string
		m      model.Redirect
		scheme string
		port   uint16
		url    string
		want   string
	}{
		{"nothing", model.Redirect{}, "http", 80, "/a?b=c", "http://example.org/a?b=c"},
		{"nothing at 8080", model.Redirect{}, "http", 8080, "/a", "http://example.org:8080/a"},
		{"port 80 at 8080", model.Redirect{Port: 80}, "http", 8080, "/a", "http://example.org/a"},
		{"port 8080 at 80", model.Redirect{Port: 8080}, "http", 80, "/a", "http://example.org:8080/a"},
		{"https at 80", model.Redirect{Scheme: "https"}, "http", 80, "/a", "https://example.org/a"},
		{"https at 8080", model.Redirect{Scheme: "https"}, "http", 8080, "/a", "https://example.org/a"},
		{"https and 443", model.Redirect{Scheme: "https", Port: 443}, "http", 80, "/a", "https://example.org/a"},
		{"https and 8443", model.Redirect{Scheme: "https", Port: 8443}, "http", 80, "/a", "https://example.org:8443/a"},
		{"nothing at 443", model.Redirect{}, "https", 443, "/a", "https://example.org/a"},
		{"port 443 at 443", model.Redirect{Port: 443}, "https", 443, "/a", "https://example.org/a"},
		{"port 80 on TLS stands there", model.Redirect{Port: 80}, "https", 443, "/a", "https://example.org:80/a"},
		{"http at 443", model.Redirect{Scheme: "http"}, "https", 443, "/a", "http://example.org/a"},
		{"http and 8080 at 443", model.Redirect{Scheme: "http", Port: 8080}, "https", 443, "/a", "http://example.org:8080/a"},
		{"host", model.Redirect{Hostname: "b.com"}, "http", 80, "/a", "http://b.com/a"},
		{"prefix", model.Redirect{Path: &model.PathModifier{Prefix: true, Value: "/new"}}, "http", 80, "/old/x?q", "http://example.org/new/x?q"},
		{"full path", model.Redirect{Path: &model.PathModifier{Value: "/new"}}, "http", 80, "/old/x?q", "http://example.org/new?q"},
		{"asterisk", model.Redirect{}, "http", 80, "*", "http://example.org/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := NewRedirect(&c.m)
			if err != nil {
				t.Fatal(err)
			}
			q := request("GET", c.url)
			q.Scheme, q.Authority = []byte(c.scheme), []byte("example.org:1234")
			if got := string(r.Location(nil, q, c.port, "/old")); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if r.Status != 302 {
				t.Errorf("status %d", r.Status)
			}
		})
	}
	_, err := NewRedirect(&model.Redirect{Status: 200})
	wrong(t, err, "status")
	_, err = NewRedirect(&model.Redirect{Scheme: "javascript"})
	wrong(t, err, "scheme")
	_, err = NewRedirect(&model.Redirect{Hostname: "a@b"})
	wrong(t, err, "hostname")
}
