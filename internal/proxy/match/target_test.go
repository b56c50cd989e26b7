package match

import (
	"bytes"
	"errors"
	pathpkg "path"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

func TestNormalPath(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"root", "/", "/"},
		{"plain", "/a/b-c_d~e.f", "/a/b-c_d~e.f"},
		{"sub-delims stay", "/a!$&'()*+,;=:@", "/a!$&'()*+,;=:@"},
		{"trailing slash stays", "/a/", "/a/"},
		{"query stays", "/a?b=/../c", "/a?b=/../c"},
		{"query stays beside a change", "/x/../a?b=%2e", "/a?b=%2e"},
		{"empty query stays", "//a?", "/a?"},
		{"dot", "/a/./b", "/a/b"},
		{"dot at the end", "/a/.", "/a/"},
		{"two dots", "/a/../b", "/b"},
		{"two dots at the end", "/a/b/..", "/a/"},
		{"two dots above the root", "/../../a", "/a"},
		{"only two dots", "/..", "/"},
		{"escaped dots", "/a/%2e%2E/b", "/b"},
		{"half escaped dots", "/a/.%2e/b", "/b"},
		{"three dots are a name", "/a/.../b", "/a/.../b"},
		{"a dot file is a name", "/a/.git", "/a/.git"},
		{"dots after a name are one", "/a../b", "/a../b"},
		{"two slashes", "//a///b//", "/a/b/"},
		{"slashes and dots", "/a//../b", "/b"},
		{"dots behind slashes", "/.//a", "/a"},
		{"unreserved", "/%41%7e%2d%5F", "/A~-_"},
		{"upper-case digits", "/%c3%a9%2f", "/%C3%A9%2F"},
		{"escaped percent is not decoded twice", "/%252e%252e/a", "/%252e%252e/a"},
		{"raw UTF-8", "/é", "/%C3%A9"},
		{"what may not stand in a path", "/a|b^c{d}\"", "/a%7Cb%5Ec%7Bd%7D%22"},
		{"bad escape", "/%zz", ""},
		{"cut escape", "/a%2", ""},
		{"lone percent", "/%", ""},
		{"escaped NUL", "/a%00.html", ""},
		{"backslash", "/a\\..\\b", ""},
		{"fragment", "/a#b", ""},
		{"fragment in the query", "/a?b#c", ""},
		{"line feed", "/a\nb", ""},
		{"space", "/a b", ""},
		{"DEL", "/a\x7f", ""},
		{"no slash", "a/b", ""},
		{"query without a path", "?a", ""},
		{"asterisk", "*", "*"},
		{"asterisk and more", "*/a", ""},
		{"absolute", "http://a/b", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &message.Request{Authority: []byte("a"), Path: []byte(c.in)}
			var target Target
			err := target.Set(r)
			if c.want == "" {
				var bad *message.Error
				if !errors.As(err, &bad) || bad.Status != 400 {
					t.Fatalf("got %q, %v, want 400", r.Path, err)
				}
				return
			}
			if err != nil || string(r.Path) != c.want {
				t.Fatalf("got %q, %v, want %q", r.Path, err, c.want)
			}
			path, query, _ := strings.Cut(c.want, "?")
			if path == "*" {
				path = "/"
			}
			if string(target.Path) != path || string(target.Query) != query {
				t.Errorf("target has %q and %q", target.Path, target.Query)
			}
		})
	}
}

func TestNormalHost(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		bad            bool
	}{
		{"plain", "a.example.com", "a.example.com", false},
		{"upper case", "A.Example.COM", "a.example.com", false},
		{"port", "a.com:8080", "a.com", false},
		{"empty port", "a.com:", "a.com", false},
		{"trailing dot", "a.com.", "a.com", false},
		{"all of it", "A.com.:80", "a.com", false},
		{"underscore", "a_b.com", "a_b.com", false},
		{"IPv4", "10.0.0.1:80", "10.0.0.1", false},
		{"IPv6", "[2001:DB8::1]:80", "[2001:db8::1]", false},
		{"IPv6 without port", "[::1]", "[::1]", false},
		{"none", "", "", false},
		{"two ports", "a.com:80:90", "", true},
		{"port that is no number", "a.com:8a", "", true},
		{"user", "good.com@evil.com", "", true},
		{"user and port", "good.com:80@evil.com", "", true},
		{"slash", "a.com/b", "", true},
		{"comma", "a.com,b.com", "", true},
		{"space", "a.com b.com", "", true},
		{"escape", "a%2ecom", "", true},
		{"wildcard", "*.a.com", "", true},
		{"UTF-8", "é.com", "", true},
		{"two dots", "a..com", "", true},
		{"leading dot", ".a.com", "", true},
		{"only a dot", ".", "", true},
		{"only a port", ":80", "", true},
		{"bare IPv6", "::1", "", true},
		{"open bracket", "[::1", "", true},
		{"name in brackets", "[evil]", "", true},
		{"too long", strings.Repeat("a.", 130), "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var target Target
			err := target.Set(&message.Request{Authority: []byte(c.in), Path: []byte("/")})
			if (err != nil) != c.bad || err == nil && string(target.Host) != c.want {
				t.Errorf("got %q, %v, want %q", target.Host, err, c.want)
			}
		})
	}
}

// TestPathConfusion holds ways past a rule in front of /admin. Whatever a backend
// makes of the path, it must not get to /admin by the rule of "/".
func TestPathConfusion(t *testing.T) {
	routes := compileAll(t, []model.Route{
		route("guarded", rule(model.Match{Path: "/admin"})),
		route("open", rule(model.Match{Path: "/"})),
		route("public", rule(model.Match{Path: "/public"})),
		route("matrix", rule(model.Match{Path: "/m;v=1"})),
	})
	table, err := Build([]model.Listener{{ID: listenerID(0)}}, routes)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{ // want "": refused
		{"/admin", "guarded"},
		{"/admin/x", "guarded"},
		{"/administrator", "open"},
		{"//admin", "guarded"},
		{"///admin//x", "guarded"},
		{"/./admin", "guarded"},
		{"/public/../admin", "guarded"},
		{"/public/%2e%2e/admin", "guarded"},
		{"/%61dmin", "guarded"},
		{"/%61%64%6d%69%6e/x", "guarded"},
		{"/admin/../public", "public"},
		{"/admin%2Fx", ""},
		{"/admin%2fx", ""},
		{"/admin%5Cx", ""},
		{"/%2Fadmin", ""},
		{"/%5Cadmin", ""},
		{"/public%2F..%2Fadmin", ""},
		{"/public/..%2Fadmin", ""},
		{"/public/..%5cadmin", ""},
		{"/public/%2e%2e%2fadmin", ""},
		{"/x/..;/admin", ""},
		{"/public/..;a=b/admin", ""},
		{"/admin;x=1/y", ""},
		{"/;/admin", ""},
		{"/admin%3Bx/y", ""},
		{"/admin\\x", ""},
		{"/admin%00", ""},
		{"/admin#x", ""},
		// Escapes that change nothing are let through as they came.
		{"/@scope%2Fname", "open"},
		{"/public/a%2Fb", "public"},
		{"/admin/a%2Fb", "guarded"},
		{"/public/a;v=1/b", "public"},
		{"/x;jsessionid=1", "open"},
		{"/admin/x;y", "guarded"},
		// The rule says itself that it means the parameter.
		{"/m;v=1", "matrix"},
		{"/m;v=1/x", "matrix"},
		// A backend that decodes twice is out of our hands: it is what it is.
		{"/%252e%252e/admin", "open"},
	} {
		t.Run(c.path, func(t *testing.T) {
			var target Target
			r := &message.Request{Authority: []byte("a"), Path: []byte(c.path)}
			err := target.Set(r)
			var e *Entry
			if err == nil {
				e, err = table.Listener(target.Host).Match(&target)
			}
			switch {
			case c.want == "" && err == nil:
				t.Errorf("is taken by %v as %q", e, r.Path)
			case c.want != "" && (err != nil || e == nil || e.Route.Model.ID.Name != c.want):
				t.Errorf("got %v, %v, want %s", e, err, c.want)
			}
		})
	}
}

func route(name string, rules ...model.Rule) model.Route {
	return model.Route{
		ID:          model.RouteID{Kind: model.HTTPRoute, ObjectName: model.ObjectName{Namespace: "ns", Name: name}},
		Attachments: []model.Attachment{{Listener: listenerID(0), Hostnames: []string{""}}},
		Rules:       rules,
	}
}

func rule(matches ...model.Match) model.Rule { return model.Rule{Matches: matches} }

// FuzzTarget: whatever comes, what is let through is normal, stays so, and two
// readings of one path never end up at two rules.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2E/x?y", "//a;b/%2f", "*", "/admin%2f..", "/\xff", "/a%"} {
		f.Add([]byte("Host.example:80"), []byte(s))
	}
	f.Add([]byte("[::1]:80"), []byte("/"))
	routes := []model.Route{route("guarded", rule(model.Match{Path: "/admin"})), route("open", rule(model.Match{Path: "/"}))}
	table, err := Build([]model.Listener{{ID: listenerID(0)}}, []*Route{Compile(&routes[0], nil), Compile(&routes[1], nil)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host, path []byte) {
		r := &message.Request{Authority: bytes.Clone(host), Path: bytes.Clone(path)}
		var a, b Target
		if a.Set(r) != nil {
			return
		}
		if bytes.ContainsAny(a.Host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ@/ ") || bytes.HasSuffix(a.Host, []byte(".")) {
			t.Fatalf("host %q of %q", a.Host, host)
		}
		p := string(a.Path)
		for _, bad := range []string{"//", "/./", "/../", "#", "\\", "\x00", "%00", " "} {
			if strings.Contains(p, bad) {
				t.Fatalf("path %q of %q has %q", p, path, bad)
			}
		}
		if p[0] != '/' || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..") {
			t.Fatalf("path %q of %q", p, path)
		}
		again := &message.Request{Authority: a.Host, Path: bytes.Clone(r.Path)}
		if err := b.Set(again); err != nil || !bytes.Equal(again.Path, r.Path) || !bytes.Equal(a.Host, b.Host) {
			t.Fatalf("%q becomes %q, and that %q: %v", path, r.Path, again.Path, err)
		}
		e, err := table.Listener(a.Host).Match(&a)
		if err == nil && e.Route.Model.ID.Name == "open" {
			lenient := pathpkg.Clean(strings.NewReplacer("%2F", "/", "%5C", "/").Replace(p))
			if lenient == "/admin" || strings.HasPrefix(lenient, "/admin/") {
				t.Fatalf("%q is open", p)
			}
		}
	})
}
