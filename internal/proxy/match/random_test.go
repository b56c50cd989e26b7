package match

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// world makes random listeners, routes and requests out of few words, so that
// they meet often.
type world struct{ *rand.Rand }

func pick[T any](w world, s ...T) T { return s[w.IntN(len(s))] }

func (w world) hostname() string {
	return pick(w, "", "", "*.com", "*.a.com", "*.b.a.com", "a.com", "b.a.com", "c.b.a.com", "d.c.b.a.com", "x.org")
}

func (w world) host() string {
	return pick(w, "com", "a.com", "b.a.com", "c.b.a.com", "d.c.b.a.com", "z.b.a.com", "x.org", "y.org", "localhost")
}

func (w world) path(n int) string {
	var b strings.Builder
	for range w.IntN(n + 1) {
		b.WriteString("/" + pick(w, "a", "b", "aa", "c", "d-e"))
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

func (w world) values(names ...string) (out []model.ValueMatch) {
	for range pick(w, 0, 0, 0, 1, 1, 2) {
		v := model.ValueMatch{Name: pick(w, names...), Value: pick(w, "1", "2")}
		if w.IntN(4) == 0 {
			v.Value, v.Regex = pick(w, "[12]", "1+", ".*", "1,2"), true
		}
		if !slices.ContainsFunc(out, func(o model.ValueMatch) bool { return o.Name == v.Name }) {
			out = append(out, v)
		}
	}
	return out
}

func (w world) match() model.Match {
	m := model.Match{Path: w.path(4), PathKind: pick(w, model.PathPrefix, model.PathPrefix, model.PathExact, model.PathRegex)}
	switch m.PathKind {
	case model.PathRegex:
		m.Path = pick(w, "/a.*", "/[ab]/b", "/a/b/c|/c", "/(a|aa)/.+", "/.*/d-e", ".*")
	case model.PathExact:
		if w.IntN(4) == 0 && m.Path != "/" {
			m.Path += "/"
		}
	}
	m.Method = pick(w, "", "", "", "GET", "POST")
	m.Headers = w.values("x-a", "x-b")
	m.Query = w.values("q", "p")
	return m
}

func (w world) listeners(n int) (out []model.Listener) {
	for i := range n {
		l := model.Listener{ID: listenerID(i), Port: 80, Protocol: model.ListenHTTP, Hostname: w.hostname()}
		if !slices.ContainsFunc(out, func(o model.Listener) bool { return o.Hostname == l.Hostname }) {
			out = append(out, l)
		}
	}
	return out
}

func listenerID(i int) model.ListenerID {
	return model.ListenerID{Gateway: model.ObjectName{Namespace: "ns", Name: "gw"}, Name: fmt.Sprint("l", i)}
}

func (w world) route(i, listeners int) model.Route {
	r := model.Route{
		ID:      model.RouteID{Kind: pick(w, model.HTTPRoute, model.GRPCRoute, model.Ingress), ObjectName: model.ObjectName{Namespace: pick(w, "n", "m"), Name: fmt.Sprint("r", i)}},
		Created: int64(w.IntN(3)),
	}
	for l := range listeners {
		if w.IntN(2) == 0 {
			continue
		}
		a := model.Attachment{Listener: listenerID(l)}
		for range 1 + w.IntN(3) {
			a.Hostnames = append(a.Hostnames, w.hostname())
		}
		slices.Sort(a.Hostnames)
		a.Hostnames = slices.Compact(a.Hostnames)
		r.Attachments = append(r.Attachments, a)
	}
	for range 1 + w.IntN(3) {
		var rule model.Rule
		for range 1 + w.IntN(3) {
			rule.Matches = append(rule.Matches, w.match())
		}
		r.Rules = append(r.Rules, rule)
	}
	return r
}

func (w world) request() oracleRequest {
	q := oracleRequest{host: w.host(), path: w.path(6), method: pick(w, "GET", "POST", "PUT")}
	if w.IntN(4) == 0 && q.path != "/" {
		q.path += "/"
	}
	for range w.IntN(4) {
		q.headers = append(q.headers, [2]string{pick(w, "x-a", "x-b", "x-c"), pick(w, "1", "2", "11")})
	}
	q.query = pick(w, "", "q=1", "q=1&p=2", "p=%31&q=2", "q=2&q=1", "r=1&p=1")
	return q
}

func requestOf(q oracleRequest) *message.Request {
	r := &message.Request{Method: []byte(q.method), Authority: []byte(q.host), Path: []byte(q.path)}
	if q.query != "" {
		r.Path = append(r.Path, "?"+q.query...)
	}
	for _, h := range q.headers {
		r.Fields = append(r.Fields, message.Field{Name: []byte(h[0]), Value: []byte(h[1])})
	}
	return r
}

func (q oracleRequest) target(t testing.TB) *Target {
	t.Helper()
	r := requestOf(q)
	var out Target
	if err := out.Set(r); err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	return &out
}

func (t *Table) hit(tb testing.TB, q oracleRequest) (oracleHit, bool) {
	tb.Helper()
	target := q.target(tb)
	l := t.Listener(target.Host)
	if l == nil {
		return oracleHit{}, false
	}
	e, err := l.Match(target)
	if err != nil {
		tb.Fatalf("%+v: %v", q, err)
	}
	if e == nil {
		return oracleHit{}, false
	}
	return oracleHit{e.Route.Model.ID, e.Rule, e.Match}, true
}

func compileAll(t testing.TB, routes []model.Route) (out []*Route) {
	t.Helper()
	for i := range routes {
		r := Compile(&routes[i], nil)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		out = append(out, r)
	}
	return out
}

func (w world) routes(n, listeners int) (out []model.Route) {
	for i := range n {
		out = append(out, w.route(i, listeners))
	}
	return out
}

// TestMatchEqualsOracle compares with the oracle on random worlds.
func TestMatchEqualsOracle(t *testing.T) {
	found := 0
	for seed := range uint64(150) {
		w := world{rand.New(rand.NewPCG(seed, 1))}
		o := oracle{listeners: w.listeners(1 + w.IntN(5))}
		o.routes = w.routes(1+w.IntN(25), 5)
		table, err := Build(o.listeners, compileAll(t, o.routes))
		if err != nil {
			t.Fatal(err)
		}
		for range 150 {
			q := w.request()
			want, ok := o.find(q)
			got, gotOK := table.hit(t, q)
			if got != want || ok != gotOK {
				t.Fatalf("seed %d: %+v:\ngot  %v %v\nwant %v %v", seed, q, gotOK, got, ok, want)
			}
			if ok {
				found++
			}
			checkExplain(t, table, q, want, ok)
		}
	}
	if found < 5000 {
		t.Errorf("only %d requests matched anything: the worlds are too empty to show much", found)
	}
}

// checkExplain: exactly the winner is marked, and everything before it has a
// reason that is its own.
func checkExplain(t *testing.T, table *Table, q oracleRequest, want oracleHit, ok bool) {
	t.Helper()
	cs, err := table.Explain(q.target(t))
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for _, c := range cs {
		if c.Reason == "" {
			t.Fatalf("%+v: %s %v has no reason", q, c.Listener, c.Entry)
		}
		if c.Entry == nil {
			continue
		}
		if c.Taken {
			taken++
			if got := (oracleHit{c.Entry.Route.Model.ID, c.Entry.Rule, c.Entry.Match}); got != want {
				t.Fatalf("%+v: explain says %v, want %v", q, got, want)
			}
		} else if taken == 0 && strings.HasPrefix(c.Reason, "it fits") {
			t.Fatalf("%+v: %s fits, but comes before the one that is taken", q, c.Entry)
		}
	}
	if taken != boolInt(ok) {
		t.Fatalf("%+v: %d are taken, want %d", q, taken, boolInt(ok))
	}
}

// TestUpdateEqualsBuild changes tables step by step, and compares each with one
// that is built at once; the tables before must answer as they did.
func TestUpdateEqualsBuild(t *testing.T) {
	applied := 0
	for seed := range uint64(25) {
		w := world{rand.New(rand.NewPCG(seed, 2))}
		routes := map[model.RouteID]*Route{}
		listeners := map[model.ListenerID]model.Listener{}
		var table *Table
		for step := range 40 {
			var c Changes
			for range w.IntN(4) {
				r := w.route(w.IntN(12), 4)
				cr := compileAll(t, []model.Route{r})[0]
				c.Routes = append(c.Routes, cr)
			}
			for id := range routes {
				if w.IntN(8) == 0 {
					c.DeleteRoutes = append(c.DeleteRoutes, id)
				}
			}
			if w.IntN(3) == 0 {
				c.DeleteListeners = append(c.DeleteListeners, listenerID(w.IntN(4)))
			}
			if w.IntN(2) == 0 {
				c.Listeners = w.listeners(1 + w.IntN(4))
			}
			before := table
			var asked []oracleRequest
			var answers []oracleHit
			for range 60 {
				q := w.request()
				hit, _ := before.hit(t, q)
				asked, answers = append(asked, q), append(answers, hit)
			}
			next, err := table.Update(c)
			for i, q := range asked {
				if hit, _ := before.hit(t, q); hit != answers[i] {
					t.Fatalf("seed %d step %d: %+v: the table before answered %v, and now %v", seed, step, q, answers[i], hit)
				}
			}
			if err != nil {
				continue // two listeners of one hostname: nothing changed
			}
			table = next
			applied++
			for _, id := range c.DeleteRoutes {
				delete(routes, id)
			}
			for _, r := range c.Routes {
				routes[r.Model.ID] = r
			}
			for _, id := range c.DeleteListeners {
				delete(listeners, id)
			}
			for _, l := range c.Listeners {
				listeners[l.ID] = l
			}
			var ls []model.Listener
			for _, l := range listeners {
				ls = append(ls, l)
			}
			var rs []*Route
			for _, r := range routes {
				rs = append(rs, r)
			}
			built, err := Build(ls, rs)
			if err != nil {
				t.Fatal(err)
			}
			for range 60 {
				q := w.request()
				a, aok := table.hit(t, q)
				b, bok := built.hit(t, q)
				if a != b || aok != bok {
					t.Fatalf("seed %d step %d: %+v: updated %v, built %v", seed, step, q, a, b)
				}
			}
		}
		// Nothing is left when all is taken away.
		var c Changes
		for id := range routes {
			c.DeleteRoutes = append(c.DeleteRoutes, id)
		}
		empty, err := table.Update(c)
		if err != nil {
			t.Fatal(err)
		}
		empty.listeners.each(func(_ string, l *Listener) {
			if l.hosts.exact.len()+l.hosts.wildcard.len() > 0 || l.hosts.hasAny {
				t.Errorf("seed %d: listener %s still has rules", seed, l.Model.ID)
			}
		})
		if empty.routes.len() > 0 {
			t.Errorf("seed %d: routes are left", seed)
		}
	}
	if applied < 500 {
		t.Errorf("only %d of 1,000 updates were possible", applied)
	}
}

func TestPmapEqualsMap(t *testing.T) {
	w := world{rand.New(rand.NewPCG(3, 3))}
	want, m, b := map[string]int{}, pmap[int]{}, &batch{}
	var old pmap[int]
	var oldWant map[string]int
	for i := range 20000 {
		key := fmt.Sprint("k", w.IntN(3000))
		if w.IntN(2) == 0 {
			want[key], m = i, m.with(b, key, i)
		} else {
			delete(want, key)
			m = m.without(b, key)
		}
		if i == 10000 { // from here on old must stay as it is
			old, oldWant, b = m, maps.Clone(want), &batch{}
		}
		v, has := want[key]
		if got, ok := m.getString(key); ok != has || got != v {
			t.Fatalf("%s is %d %v, want %d %v", key, got, ok, v, has)
		}
	}
	checkPmap(t, m, want)
	checkPmap(t, old, oldWant)
}

func checkPmap(t *testing.T, m pmap[int], want map[string]int) {
	t.Helper()
	if m.len() != len(want) {
		t.Errorf("%d keys, want %d", m.len(), len(want))
	}
	got := map[string]int{}
	m.each(func(k string, v int) { got[k] = v })
	if !maps.Equal(got, want) {
		t.Errorf("each gives %d keys that are not those of the %d", len(got), len(want))
	}
}
