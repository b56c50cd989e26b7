package match

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
)

func at(hostnames []string, r model.Route) model.Route {
	r.Attachments[0].Hostnames = hostnames
	return r
}

func header(n int) (out []model.ValueMatch) {
	for i := range n {
		out = append(out, model.ValueMatch{Name: "x-" + string(rune('a'+i)), Value: "1"})
	}
	return out
}

// TestPrecedence has two routes that both fit; the first of each pair wins.
func TestPrecedence(t *testing.T) {
	query := []model.ValueMatch{{Name: "q", Value: "1"}}
	aged := func(r model.Route, created int64) model.Route { r.Created = created; return r }
	kind := func(r model.Route, k model.RouteKind) model.Route { r.ID.Kind = k; return r }
	q := oracleRequest{host: "a.b.com", path: "/x/y", method: "GET", query: "q=1", headers: [][2]string{{"x-a", "1"}, {"x-b", "1"}}}
	for _, c := range []struct {
		name      string
		win, lose model.Route
	}{
		{"an exact hostname before an exact path", at([]string{"a.b.com"}, route("z", rule(model.Match{Path: "/"}))), at([]string{"*.b.com"}, route("a", rule(model.Match{Path: "/x/y", PathKind: model.PathExact})))},
		{"a longer wildcard", at([]string{"*.b.com"}, route("z", rule(model.Match{Path: "/"}))), at([]string{"*.com"}, route("a", rule(model.Match{Path: "/x"})))},
		{"a wildcard before any", at([]string{"*.com"}, route("z", rule(model.Match{Path: "/"}))), route("a", rule(model.Match{Path: "/x"}))},
		{"an exact path before a method", route("z", rule(model.Match{Path: "/x/y", PathKind: model.PathExact})), route("a", rule(model.Match{Path: "/x/y", Method: "GET"}))},
		{"an exact path before a longer expression", route("z", rule(model.Match{Path: "/x/y", PathKind: model.PathExact})), route("a", rule(model.Match{Path: "/x/y|/looooooong", PathKind: model.PathRegex}))},
		{"a longer prefix before headers", route("z", rule(model.Match{Path: "/x/y"})), route("a", rule(model.Match{Path: "/x", Headers: header(2)}))},
		{"a longer expression before a prefix", route("z", rule(model.Match{Path: "/[xy]/.", PathKind: model.PathRegex})), route("a", rule(model.Match{Path: "/x"}))},
		{"a prefix before an expression of its length", route("z", rule(model.Match{Path: "/x/y"})), route("a", rule(model.Match{Path: "/x.*", PathKind: model.PathRegex}))},
		{"a method before headers", route("z", rule(model.Match{Path: "/x", Method: "GET"})), route("a", rule(model.Match{Path: "/x", Headers: header(2)}))},
		{"more headers", route("z", rule(model.Match{Path: "/x", Headers: header(2)})), route("a", rule(model.Match{Path: "/x", Headers: header(1), Query: query}))},
		{"more query parameters", route("z", rule(model.Match{Path: "/x", Query: query})), route("a", rule(model.Match{Path: "/x"}))},
		{"an older route", aged(route("z", rule(model.Match{Path: "/x"})), 1), aged(route("a", rule(model.Match{Path: "/x"})), 2)},
		{"the name", route("a", rule(model.Match{Path: "/x"})), route("z", rule(model.Match{Path: "/x"}))},
		{"HTTPRoute before Ingress", route("a", rule(model.Match{Path: "/x"})), kind(route("a", rule(model.Match{Path: "/x"})), model.Ingress)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, order := range [][]model.Route{{c.win, c.lose}, {c.lose, c.win}} {
				table, err := Build([]model.Listener{{ID: listenerID(0)}}, compileAll(t, order))
				if err != nil {
					t.Fatal(err)
				}
				got, _ := table.hit(t, q)
				if got.id != c.win.ID {
					t.Errorf("%s wins, want %s", got.id, c.win.ID)
				}
			}
		})
	}
}

// TestHostnameFallsThrough: a hostname orders rules, it does not fence them off;
// a listener does.
func TestHostnameFallsThrough(t *testing.T) {
	specific := at([]string{"a.b.com"}, route("specific", rule(model.Match{Path: "/api"})))
	wild := at([]string{"*.b.com"}, route("wild", rule(model.Match{Path: "/web"})))
	all := route("all", rule(model.Match{Path: "/"}))
	other := route("other", rule(model.Match{Path: "/only"}))
	other.Attachments = []model.Attachment{{Listener: listenerID(1), Hostnames: []string{"*.c.com"}}}
	table, err := Build([]model.Listener{{ID: listenerID(0)}, {ID: listenerID(1), Hostname: "*.c.com"}}, compileAll(t, []model.Route{specific, wild, all, other}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ host, path, want string }{
		{"a.b.com", "/api/x", "specific"},
		{"a.b.com", "/web", "wild"},
		{"a.b.com", "/x", "all"},
		{"z.b.com", "/api", "all"},
		{"x.c.com", "/only", "other"},
		{"x.c.com", "/", ""},
	} {
		got, _ := table.hit(t, oracleRequest{host: c.host, path: c.path, method: "GET"})
		if got.id.Name != c.want {
			t.Errorf("%s%s is taken by %q, want %q", c.host, c.path, got.id.Name, c.want)
		}
	}
}

func TestMisdirected(t *testing.T) {
	table, err := Build([]model.Listener{{ID: listenerID(0), Hostname: "a.com"}, {ID: listenerID(1), Hostname: "*.b.com"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	own := table.Listener([]byte("a.com"))
	for host, want := range map[string]bool{"a.com": false, "x.b.com": true, "c.com": false} {
		if got := table.Misdirected(own, []byte(host)); got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}

func TestMatchName(t *testing.T) {
	r := model.Route{ID: model.RouteID{Kind: model.TLSRoute, ObjectName: model.ObjectName{Namespace: "n", Name: "r"}},
		Attachments: []model.Attachment{{Listener: listenerID(0), Hostnames: []string{"*.a.com"}}}, Rules: []model.Rule{{}}}
	table, err := Build([]model.Listener{{ID: listenerID(0), Protocol: model.ListenTLS}}, compileAll(t, []model.Route{r}))
	if err != nil {
		t.Fatal(err)
	}
	l := table.Listener([]byte("x.a.com"))
	if e := l.MatchName([]byte("x.a.com")); e == nil || e.Route.Model.ID != r.ID {
		t.Errorf("x.a.com is taken by %v", e)
	}
	if e := l.MatchName([]byte("a.com")); e != nil {
		t.Errorf("a.com is taken by %v", e)
	}
}

func TestBuildRefusesOneHostnameTwice(t *testing.T) {
	_, err := Build([]model.Listener{{ID: listenerID(0), Hostname: "a.com"}, {ID: listenerID(1), Hostname: "a.com"}}, nil)
	if err == nil || !strings.Contains(err.Error(), `"a.com"`) {
		t.Errorf("got %v", err)
	}
}

// TestCompileNamesWhatIsWrong: the rest of the route serves all the same.
func TestCompileNamesWhatIsWrong(t *testing.T) {
	r := route("r",
		rule(model.Match{Path: "/a("}, model.Match{Path: "a)(b", PathKind: model.PathRegex}),
		rule(model.Match{Path: "/", Headers: []model.ValueMatch{{Name: "h", Value: "(", Regex: true}}}, model.Match{Path: "/%zz"}),
		rule())
	c := Compile(&r, nil)
	if c.Err == nil || len(c.entries) != 1 {
		t.Fatalf("%d entries, %v", len(c.entries), c.Err)
	}
	lines := strings.Split(c.Err.Error(), "\n")
	for i, want := range []string{"rules[0].matches[1].path:", "rules[1].matches[0].headers[0]:", `rules[1].matches[1].path: "/%zz" is no path`, "rules[2]: has no matches"} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Errorf("error %d of %q does not say %q", i, lines, want)
		}
	}
}

func TestExplainSaysWhy(t *testing.T) {
	r := route("r",
		rule(model.Match{Path: "/x/y", PathKind: model.PathExact}),
		rule(model.Match{Path: "/a", Method: "POST"}),
		rule(model.Match{Path: "/a", Headers: []model.ValueMatch{{Name: "v", Value: "2"}}}),
		rule(model.Match{Path: "/a", Query: []model.ValueMatch{{Name: "q", Value: "1"}}}),
		rule(model.Match{Path: "/a"}),
		rule(model.Match{Path: "/"}),
		rule(model.Match{Path: "/b.+longer", PathKind: model.PathRegex}))
	table, err := Build([]model.Listener{{ID: listenerID(0)}, {ID: listenerID(1), Hostname: "*.x.org"}}, compileAll(t, []model.Route{r}))
	if err != nil {
		t.Fatal(err)
	}
	cs, err := table.Explain(oracleRequest{host: "h.com", path: "/a/b", method: "GET", headers: [][2]string{{"v", "1"}}}.target(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range cs {
		got = append(got, c.Reason)
	}
	want := []string{
		`the host "h.com" does not fit "*.x.org"`,
		`it has the most specific hostname that fits`,
		`the path "/a/b" is not "/x/y"`,
		`the path "/a/b" does not fit the expression "/b.+longer"`,
		`the method is GET, not POST`,
		`the header "v" is not "2"`,
		`there is no query parameter "q"`,
		`it is the first that fits`,
		`it fits, but HTTPRoute ns/r rules[4].matches[0] comes first: its path is longer`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
