package proxy

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

func TestPairRules(t *testing.T) {
	rule := func(name, path string) model.Rule {
		return model.Rule{Name: name, Matches: []model.Match{{Path: path}}}
	}
	for _, c := range []struct {
		name     string
		old, now []model.Rule
		want     []int
	}{
		{"the same", []model.Rule{rule("", "/a"), rule("", "/b")}, []model.Rule{rule("", "/a"), rule("", "/b")}, []int{0, 1}},
		{"one comes first", []model.Rule{rule("", "/a"), rule("", "/b")}, []model.Rule{rule("", "/c"), rule("", "/a"), rule("", "/b")}, []int{-1, 0, 1}},
		{"the first goes", []model.Rule{rule("", "/a"), rule("", "/b")}, []model.Rule{rule("", "/b")}, []int{1}},
		{"two change places", []model.Rule{rule("", "/a"), rule("", "/b")}, []model.Rule{rule("", "/b"), rule("", "/a")}, []int{1, 0}},
		{"another path", []model.Rule{rule("", "/a")}, []model.Rule{rule("", "/b")}, []int{0}},
		{"a name stays", []model.Rule{rule("x", "/a"), rule("y", "/b")}, []model.Rule{rule("y", "/a"), rule("x", "/c")}, []int{1, 0}},
		{"a name is another rule", []model.Rule{rule("x", "/a")}, []model.Rule{rule("y", "/b")}, []int{-1}},
		{"equal matches", []model.Rule{rule("", "/a"), rule("", "/a")}, []model.Rule{rule("", "/b"), rule("", "/a"), rule("", "/a")}, []int{-1, 1, 0}},
		{"none before", nil, []model.Rule{rule("", "/a")}, []int{-1}},
	} {
		if got := pairRules(c.old, c.now); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// TestEditedRouteKeepsItsCounts holds that an edit of one rule resets neither
// counters nor rate limits, weights and samples of the others, wherever they move.
func TestEditedRouteKeepsItsCounts(t *testing.T) {
	copies := make(chan string, 100)
	w := newWorld(t, Config{})
	limited := model.Rule{
		Name: "", Matches: []model.Match{{Path: "/limited"}}, Backends: []model.BackendRef{{Upstream: upstreamID("a"), Weight: 1}},
		Policy: &model.TrafficPolicy{RateLimits: []model.RateLimit{{Requests: 4, Per: time.Hour}}},
	}
	shared := model.Rule{
		Matches:  []model.Match{{Path: "/shared"}},
		Backends: []model.BackendRef{{Upstream: upstreamID("a"), Weight: 3}, {Upstream: upstreamID("b"), Weight: 1}},
		Filters:  model.Filters{Mirrors: []model.Mirror{{Upstream: upstreamID("m"), Numerator: 1, Denominator: 4}}},
	}
	route := func(i int) model.Route {
		return routeTo("r", "a", func(r *model.Route) {
			edited := r.Rules[0]
			edited.Matches = []model.Match{{Path: "/edited"}}
			edited.Filters.RequestHeaders = &model.HeaderFilter{Set: []model.Header{{Name: "x-edit", Value: fmt.Sprint(i)}}}
			r.Rules = []model.Rule{limited, edited, shared}
			if i%2 == 1 {
				r.Rules = []model.Rule{edited, shared, limited}
			}
		})
	}
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{httpListener("")}, Routes: []model.Route{route(0)},
		Upstreams: []model.Upstream{
			service("a", backendServer(t, named("a"))), service("b", backendServer(t, named("b"))),
			service("m", mirrorTo(t, copies)),
		},
	})
	var passed, refused int
	n := map[string]int{}
	for i := range 8 {
		res, _ := get(t, w.url("/limited"))
		switch res.StatusCode {
		case 200:
			passed++
		case 429:
			refused++
		}
		_, body := get(t, w.url("/shared"))
		n[body]++
		w.apply(driver.GatewayBatch{Routes: []model.Route{route(i + 1)}})
	}
	if passed != 4 || refused != 4 {
		t.Errorf("of the limited rule %d passed and %d were refused, want 4 and 4", passed, refused)
	}
	if n["a"] != 6 || n["b"] != 2 {
		t.Errorf("weights: got %v, want 6 and 2", n)
	}
	for range 2 {
		select {
		case <-copies:
		case <-time.After(30 * time.Second):
			t.Fatal("a copy is missing: the sample began anew")
		}
	}
	s, _ := w.engine.Route(route(8).ID)
	if want := []uint64{8, 0, 8}; !reflect.DeepEqual(s.Requests, want) {
		t.Errorf("requests: got %v, want %v", s.Requests, want)
	}
}

// mirrorTo is a backend that tells of what it gets.
func mirrorTo(t *testing.T, got chan<- string) string {
	return backendServer(t, func(_ http.ResponseWriter, r *http.Request) { got <- r.URL.Path })
}

// TestBadExpressionTakesNothing holds what driver.RouteState says of a match that
// cannot be read.
func TestBadExpressionTakesNothing(t *testing.T) {
	w := simple(t, named("a"), func(r *model.Route) {
		r.Rules[0].Matches = []model.Match{{Path: "/bad/(", PathKind: model.PathRegex}, {Path: "/good"}}
	})
	for path, want := range map[string]int{"/good": 200, "/bad/": 404, "/bad/(": 404, "/": 404} {
		if res, _ := get(t, w.url(path)); res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, res.StatusCode, want)
		}
	}
	if s, _ := w.engine.Route(routeTo("r", "a").ID); s.Err == nil || !s.Serving {
		t.Errorf("state %+v", s)
	}
}
