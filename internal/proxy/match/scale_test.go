//go:build !race

package match

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
)

// many returns n routes of ten matches each, on one hostname or each on its own.
func many(n int, oneHost bool) (out []model.Route) {
	for i := range n {
		r := route(fmt.Sprint("r", i))
		if !oneHost {
			r.Attachments[0].Hostnames = []string{fmt.Sprintf("h%d.example.com", i)}
		}
		for j := range 5 {
			r.Rules = append(r.Rules, rule(
				model.Match{Path: fmt.Sprintf("/svc%d/v%d", i, j)},
				model.Match{Path: fmt.Sprintf("/exact%d/v%d", i, j), PathKind: model.PathExact, Headers: header(1)}))
		}
		out = append(out, r)
	}
	return out
}

func TestLookupAllocatesNothing(t *testing.T) {
	routes := many(100, true)
	routes = append(routes, at([]string{"*.example.com"}, route("wild", rule(model.Match{Path: "/w", Query: []model.ValueMatch{{Name: "q", Value: "a b"}}}))))
	table, err := Build([]model.Listener{{ID: listenerID(0), Hostname: "*.example.com"}}, compileAll(t, routes))
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []oracleRequest{
		{host: "Some.Example.com:8080", path: "/svc7/v3/x/y/z", method: "GET"},
		{host: "a.b.example.com", path: "/x/..//exact9/%761", method: "GET", headers: [][2]string{{"x-a", "1"}}},
		{host: "a.example.com", path: "/w", query: "p=1&%71=a+b", headers: [][2]string{{"x-a", "1"}, {"x-a", "2"}}},
		{host: "a.example.com", path: "/svc1%2fv1/nothing", method: "GET"},
	} {
		r := requestOf(q)
		path, buf := string(r.Path), make([]byte, 0, 100)
		var target Target
		n := testing.AllocsPerRun(200, func() {
			r.Path = append(buf, path...)
			if err := target.Set(r); err != nil {
				t.Fatal(err)
			}
			if l := table.Listener(target.Host); l == nil {
				t.Fatal("no listener")
			} else if e, err := l.Match(&target); e == nil && err == nil && q.path[1] != 's' {
				t.Fatal("no match")
			}
		})
		if n != 0 {
			t.Errorf("%s%s: %v allocations", q.host, q.path, n)
		}
	}
}

// TestFiveThousandRoutes holds memory and the cost of an edit to bounds that are
// wide, but far from what a whole rebuild would take. Allocated bytes stand for
// time: they are the same on every machine.
func TestFiveThousandRoutes(t *testing.T) {
	for _, oneHost := range []bool{true, false} {
		t.Run(fmt.Sprintf("one host %v", oneHost), func(t *testing.T) {
			models := many(5000, oneHost)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			table, err := Build([]model.Listener{{ID: listenerID(0)}}, compileAll(t, models))
			if err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			build := after.TotalAlloc - before.TotalAlloc
			runtime.GC()
			runtime.ReadMemStats(&after)
			held := after.HeapAlloc - before.HeapAlloc
			edited := models[2500]
			edited.Rules = edited.Rules[:4]
			runtime.ReadMemStats(&before)
			next, err := table.Update(Changes{Routes: []*Route{Compile(&edited, nil)}})
			if err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			update := after.TotalAlloc - before.TotalAlloc
			t.Logf("5,000 routes, 50,000 matches: %.1f MiB held, %.1f MiB to build, %.1f KiB for an edit", float64(held)/(1<<20), float64(build)/(1<<20), float64(update)/(1<<10))
			if held > 24<<20 {
				t.Errorf("holds %d bytes", held)
			}
			if update > build/100 {
				t.Errorf("an edit allocates %d bytes, a build %d", update, build)
			}
			runtime.KeepAlive(next)
			runtime.KeepAlive(models)
		})
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 100, 5000} {
		b.Run(fmt.Sprint(n, " routes"), func(b *testing.B) {
			models := many(n, true)
			table, err := Build([]model.Listener{{ID: listenerID(0)}}, compileAll(b, models))
			if err != nil {
				b.Fatal(err)
			}
			r := requestOf(oracleRequest{host: "www.example.com", path: "/svc0/v1/some/thing", method: "GET", headers: [][2]string{{"accept", "*/*"}}})
			var target Target
			b.ReportAllocs()
			for b.Loop() {
				if err := target.Set(r); err != nil {
					b.Fatal(err)
				}
				if e, _ := table.Listener(target.Host).Match(&target); e == nil {
					b.Fatal("no match")
				}
			}
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	models := many(5000, true)
	table, err := Build([]model.Listener{{ID: listenerID(0)}}, compileAll(b, models))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if table, err = table.Update(Changes{Routes: []*Route{Compile(&models[7], nil)}}); err != nil {
			b.Fatal(err)
		}
	}
}
